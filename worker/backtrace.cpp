#include "worker/backtrace.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "worker/signals.h"

namespace smlp {

namespace {

constexpr int most_frames = 48, frames_of_handler = 2;  // the handler's own and the kernel's return
std::array<void*, most_frames> frames;
std::atomic<int> frame_count = -1;  // -1: not asked or not answered yet

void answer(int) { frame_count = ::backtrace(frames.data(), most_frames); }

std::string name_of(void* address) {
  Dl_info facts{};
  if (dladdr(address, &facts) == 0) return fmt::format("{}", address);
  if (facts.dli_sname == nullptr) {
    const auto offset = static_cast<const char*>(address) - static_cast<const char*>(facts.dli_fbase);
    const auto file = std::filesystem::path(facts.dli_fname == nullptr ? "?" : facts.dli_fname).filename().string();
    return fmt::format("{}+{:#x}", file, offset);
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(abi::__cxa_demangle(facts.dli_sname, nullptr, nullptr, &status),
                                                     std::free);
  const std::string name = status == 0 ? plain.get() : facts.dli_sname;
  auto arguments = name.find('(');
  while (arguments != std::string::npos && name.compare(arguments, 11, "(anonymous ") == 0) {
    arguments = name.find('(', arguments + 1);
  }
  return name.substr(0, arguments);
}

using Clock = std::chrono::steady_clock;

// How many frames the thread has answered with before `end`; 0: it did not answer.
int ask(pthread_t thread, Clock::time_point end) {
  frame_count = -1;
  if (pthread_kill(thread, SIGUSR2) != 0) return 0;
  while (frame_count < 0 && Clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return std::max(frame_count.load(), 0);
}

}  // namespace

void prepare_backtraces() {
  ::backtrace(frames.data(), most_frames);
  handle_signal(SIGUSR2, answer);
}

std::vector<std::string> backtrace_of(pthread_t thread, double seconds) {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  // Generated code (a product of oneDNN) can't be unwound: the thread is asked again until it is out of it.
  int count = ask(thread, end);
  while (count == frames_of_handler + 1 && Clock::now() < end) count = ask(thread, end);
  std::vector<std::string> names;
  for (int i = frames_of_handler; i < count; ++i) names.push_back(name_of(frames[static_cast<std::size_t>(i)]));
  return names;
}

}  // namespace smlp
