#include "launcher/rank_words.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace smlp {

namespace {

bool is_ours(int status) {
  return status >= static_cast<int>(ExitCode::usage) && status <= static_cast<int>(ExitCode::configuration);
}

bool is_frame(const std::string& line) { return line.size() > 60 && line.find_first_not_of("-\n") == std::string::npos; }

bool counts_more_frames(const std::string& line) {
  return line.starts_with('[') && (line.find(" sent help message ") != std::string::npos ||
                                   line.find(" see all help / error messages") != std::string::npos);
}

}  // namespace

RankWords::RankWords(std::FILE* out) : out_(out) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(ExitCode::unavailable, fmt::format("there is no pipe for the ranks' words: {}", std::strerror(errno)));
  }
  exit_ = ends[0];
  entrance_ = ends[1];
}

RankWords::~RankWords() {
  close(exit_);
  if (entrance_ >= 0) close(entrance_);
}

void RankWords::pass_on() {
  close(entrance_);
  entrance_ = -1;
  std::array<char, 4096> block{};
  std::string rest;
  for (;;) {
    const auto count = read(exit_, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    rest.append(block.data(), static_cast<std::size_t>(count));
    std::size_t start = 0;
    for (auto end = rest.find('\n'); end != std::string::npos; end = rest.find('\n', start)) {
      take_line(rest.substr(start, end + 1 - start));
      start = end + 1;
    }
    rest.erase(0, start);
  }
  if (!rest.empty()) take_line(rest);
}

void RankWords::end(int status) {
  if (told_.empty() || !is_ours(status)) tell(of_mpi_);
}

void RankWords::take_line(const std::string& line) {
  if (line.starts_with("smlp")) {
    if (told_.insert(line).second) tell(line);
    return;
  }
  const bool frame = is_frame(line);
  if (frame) framed_ = !framed_;
  if (frame || framed_ || counts_more_frames(line)) of_mpi_ += line;
  else tell(line);
}

void RankWords::tell(const std::string& text) {
  std::fputs(text.c_str(), out_);
  std::fflush(out_);
}

}  // namespace smlp
