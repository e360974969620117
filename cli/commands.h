// The subcommands of `regard`. Each registers itself on the app; its callback stores the process's exit code.
// Exit codes: 0 good, 1 a check or comparison missed, 2 bad input (one line on stderr that starts with "regard: ").
#pragma once

#include <CLI/CLI.hpp>

namespace regard::cli {

void RegisterInfo(CLI::App& app, int& exit_code);     // cmd_info.cc
void RegisterList(CLI::App& app, int& exit_code);     // cmd_list.cc
void RegisterExplain(CLI::App& app, int& exit_code);  // cmd_explain.cc
void RegisterRun(CLI::App& app, int& exit_code);      // cmd_run.cc
void RegisterCheck(CLI::App& app, int& exit_code);    // cmd_check.cc
void RegisterBench(CLI::App& app, int& exit_code);    // cmd_bench.cc
void RegisterCuda(CLI::App& app, int& exit_code);     // cmd_cuda.cc

// True once Ctrl-C came; long loops look at it, stop cleanly, print what they have and exit with 130.
bool Interrupted() noexcept;  // main.cc

}  // namespace regard::cli
