// One run of another program: no shell, no input, a time limit, its output captured. The calling thread waits; nothing
// throws because the program is missing, fails or hangs, or because this process may open or start no more.
#pragma once

#include <string>
#include <vector>

namespace smlp {

struct ProgramAnswer {
  int code = -1;        // its exit code, 128 + signal when it was killed; -1: it did not start, or not end in time
  std::string out, err;
  std::string failure;  // why code is -1: "squeue did not answer within 10 s"
};

// The first 16 MiB of each stream are kept. The program and all of its process group are killed when the time is up,
// or when it has ended itself and left children behind that hold its output open. command[0] is looked up in PATH.
ProgramAnswer run_program(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                          double seconds);

std::string path_of_program(const std::string& name);  // the first that may be executed in a folder of PATH; "": none
bool is_on_path(const std::string& program);
std::vector<std::string> own_environment();  // NAME=value
// What exec takes: a pointer to each word, and a null behind them.
std::vector<char*> exec_pointers(std::vector<std::string>& words);

}  // namespace smlp
