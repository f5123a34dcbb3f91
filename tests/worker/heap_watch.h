// What one thread takes from the heap by `new`: a program that has heap_watch.cpp among its files counts that between the
// two ends of a HeapWatch. What oneDNN takes within its own library is not counted.
#pragma once

#include <cstdint>
#include <string>

namespace smlp::test {

class HeapWatch {
 public:
  HeapWatch();
  ~HeapWatch();
  HeapWatch(const HeapWatch&) = delete;
  HeapWatch& operator=(const HeapWatch&) = delete;

  std::int64_t taken() const;  // how often, since it began
  std::string told() const;    // by whom: a line for each of the first, innermost function first
};

}  // namespace smlp::test
