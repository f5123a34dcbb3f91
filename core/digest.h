// XXH3-128 of bytes as 32 hex digits, in the order `xxhsum -H2` prints them. A check against accidents, not
// against people.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace smlp {

class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void update(std::span<const std::byte> bytes);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_of(std::span<const std::byte> bytes);
std::string digest_of(const std::string& text);

}  // namespace smlp
