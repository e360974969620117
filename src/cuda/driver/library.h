// Where NVRTC and the CUDA driver are looked for, and how a library is opened. Opened libraries stay loaded for the
// life of the process. Nothing here throws: what was tried ends up in the words of a Status.
#pragma once

#include <string>
#include <vector>

namespace regard::cuda {

// What the search reads of the process; tests fill one of their own.
struct SearchEnvironment {
  std::vector<std::string> cuda_homes;  // CUDA_HOME, CUDA_PATH
  std::string virtual_env;              // VIRTUAL_ENV
  std::string conda_prefix;             // CONDA_PREFIX
  std::string home;                     // HOME
  std::string python_path;              // PYTHONPATH, with colons between
  std::string path;                     // PATH, with colons between
  std::string own_library;              // the file that holds this code: libregard.so, regard/_core.so, a program

  static SearchEnvironment OfProcess();
};

// Folders that may hold libnvrtc.so.N, best first: toolkits, then the folders that pip packages of NVRTC unpack to, in
// each site-packages that the environment leads to. Only existing folders, each once.
std::vector<std::string> NvrtcFolders(const SearchEnvironment& environment);

struct NvrtcFile {
  std::string path;
  int major = 0;  // of libnvrtc.so.MAJOR
};
// Newest first.
std::vector<NvrtcFile> NvrtcFilesIn(const std::string& folder);

// dlopen; null with *said set where it fails.
void* OpenLibrary(const std::string& file, std::string* said);
void* Symbol(void* library, const char* name);
// The file that an opened library was loaded from, by one of its symbols; `otherwise` where the loader does not know.
std::string FileOf(void* symbol, const std::string& otherwise);

}  // namespace regard::cuda
