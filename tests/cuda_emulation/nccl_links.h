// Bytes between the processes of a communicator, in pieces through memory that they share: one ring for each pair.
// Every message begins with a tag, which its receiver compares with what it expects.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace smlp::emulation {

struct Tag {
  std::int64_t call, type, op, root, number;  // number: of the collective on its communicator; 0: a message of two
  std::uint64_t bytes;
  bool operator==(const Tag&) const = default;
};

struct Message {
  int peer;
  void* memory;  // of the sender: read
  Tag tag;
};

class NcclLinks {
 public:
  static std::string make_name();
  // Waits until all ranks are there; throws std::runtime_error where one does not come.
  NcclLinks(const std::string& name, int rank, int ranks);
  ~NcclLinks();
  NcclLinks(const NcclLinks&) = delete;
  NcclLinks& operator=(const NcclLinks&) = delete;

  // All of them at once; "" or what went wrong.
  std::string exchange(const std::vector<Message>& out, const std::vector<Message>& in);

 private:
  struct Ring;
  struct Shared;
  struct Progress;
  Ring& ring(int from, int to);
  bool push(Progress& message);
  bool pull(Progress& message, std::string& wrong);

  int rank_, ranks_;
  std::size_t bytes_;
  Shared* shared_ = nullptr;
};

}  // namespace smlp::emulation
