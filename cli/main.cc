// The `regard` command: subcommands, one-line errors, exit codes (commands.h), Ctrl-C.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "regard/status.h"
#include "regard/version.h"

namespace regard::cli {
namespace {

constexpr int kBadInput = 2;
constexpr int kInterruptedExit = 130;

volatile std::sig_atomic_t interrupted = 0;

// The first Ctrl-C asks long loops to stop; the handler then steps aside, so that a second one ends the process.
extern "C" void OnInterrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

// The text of an error as one line.
std::string OneLine(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (std::size_t at; (at = text.find('\n')) != std::string::npos;) text.replace(at, 1, "; ");
  return text;
}

int Complain(const std::string& text) {
  std::fflush(stdout);
  std::fprintf(stderr, "regard: %s\n", OneLine(text).c_str());
  return kBadInput;
}

// The subcommand that the command line reached, for the hint at the end of a parse error.
std::string HelpCommand(const CLI::App& app) {
  std::string words = "regard";
  for (auto subcommands = app.get_subcommands(); !subcommands.empty();
       subcommands = subcommands.front()->get_subcommands()) {
    words += " " + subcommands.front()->get_name();
  }
  return words + " --help";
}

int Run(int argc, char** argv) {
  CLI::App app("Exact attention: which kernel runs and why, proof against an fp64 reference, speed against the roof.",
               "regard");
  app.set_version_flag("--version", std::string("regard ") + regard_version());
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 good, 1 a check missed, 2 bad input, 130 interrupted.\n"
      "A CASE is one line such as \"decode b=1 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=16\".");
  int exit_code = 0;
  RegisterInfo(app, exit_code);
  RegisterList(app, exit_code);
  RegisterExplain(app, exit_code);
  RegisterRun(app, exit_code);
  RegisterCheck(app, exit_code);
  RegisterBench(app, exit_code);
  RegisterCuda(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return Complain(OneLine(e.what()) + "; see " + HelpCommand(app));
  } catch (const Error& e) {
    return Complain(e.what());
  } catch (const std::bad_alloc&) {
    return Complain("memory: value not available; expected enough free memory for the case");
  } catch (const std::exception& e) {
    return Complain(e.what());
  }
  return Interrupted() ? kInterruptedExit : exit_code;
}

}  // namespace

bool Interrupted() noexcept {
  return interrupted != 0;
}

}  // namespace regard::cli

int main(int argc, char** argv) {
  std::signal(SIGINT, regard::cli::OnInterrupt);
  return regard::cli::Run(argc, argv);
}
