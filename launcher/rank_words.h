// What the ranks of a command and their mpirun write to the standard error, on its way to people: a sentence that several
// ranks say is told once, and what Open MPI adds to a rank's end only where no rank has said why it ended.
#pragma once

#include <cstdio>
#include <set>
#include <string>

namespace smlp {

class RankWords {
 public:
  explicit RankWords(std::FILE* out);  // Error(unavailable) where there is no pipe
  ~RankWords();
  RankWords(const RankWords&) = delete;
  RankWords& operator=(const RankWords&) = delete;

  int entrance() const { return entrance_; }  // the standard error of the child
  void pass_on();                             // until the child and all that it started have closed it
  void end(int status);                       // the child's exit code

 private:
  void take_line(const std::string& line);
  void tell(const std::string& text);

  std::FILE* out_;
  int exit_ = -1, entrance_ = -1;
  std::set<std::string> told_;  // by ranks
  std::string of_mpi_;          // kept back
  bool framed_ = false;
};

}  // namespace smlp
