#include "tests/worker/heap_watch.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <utility>

namespace {

constexpr std::size_t most_told = 32, most_frames = 12, own_frames = 2;

struct Taken {
  std::size_t bytes = 0;
  std::array<void*, most_frames> frames{};
};

struct Count {
  bool on = false;
  std::int64_t times = 0;
  std::array<Taken, most_told> first{};
};
thread_local Count count;

bool in_library(void* address, std::string_view name) {
  Dl_info facts{};
  return address != nullptr && dladdr(address, &facts) != 0 && facts.dli_fname != nullptr &&
         std::string_view(facts.dli_fname).find(name) != std::string_view::npos;
}

void note(std::size_t bytes) {
  if (!count.on) return;
  count.on = false;  // what finding the caller takes is not counted
  Taken taken{bytes, {}};
  backtrace(taken.frames.data(), most_frames);
  bool counts = true;
  for (void* frame : taken.frames) counts = counts && !in_library(frame, "libdnnl");
  if (counts && count.times < std::int64_t{most_told}) count.first[static_cast<std::size_t>(count.times)] = taken;
  count.times += counts ? 1 : 0;
  count.on = true;
}

void* take(std::size_t bytes, std::size_t alignment) {
  note(bytes);
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = alignment <= alignof(std::max_align_t) ? std::malloc(rounded) : std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

std::string function_of(void* address) {
  Dl_info facts{};
  if (dladdr(address, &facts) == 0 || facts.dli_sname == nullptr) return "?";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(abi::__cxa_demangle(facts.dli_sname, nullptr, nullptr, &status),
                                                     std::free);
  return status == 0 ? plain.get() : facts.dli_sname;
}

}  // namespace

void* operator new(std::size_t bytes) { return take(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) { return take(bytes, static_cast<std::size_t>(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace smlp::test {

HeapWatch::HeapWatch() {
  count = {};
  count.on = true;
}

HeapWatch::~HeapWatch() { count.on = false; }

std::int64_t HeapWatch::taken() const { return count.times; }

std::string HeapWatch::told() const {
  const bool on = std::exchange(count.on, false);
  std::string text;
  const auto some = std::min<std::size_t>(most_told, static_cast<std::size_t>(count.times));
  for (const Taken& taken : std::span(count.first).first(some)) {
    text += std::to_string(taken.bytes) + " bytes:";
    for (std::size_t i = own_frames; i < most_frames; ++i) {
      const std::string name = function_of(taken.frames[i]);
      if (name.find("smlp::") != std::string::npos) text += "  " + name.substr(0, name.find('('));
    }
    text += '\n';
  }
  count.on = on;
  return text;
}

}  // namespace smlp::test
