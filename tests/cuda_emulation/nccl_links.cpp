#include "tests/cuda_emulation/nccl_links.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

namespace smlp::emulation {

namespace {
constexpr std::size_t ring_bytes = std::size_t{1} << 16;
constexpr auto patience = std::chrono::seconds(20);
}  // namespace

struct NcclLinks::Ring {
  alignas(64) std::atomic<std::uint64_t> written;
  alignas(64) std::atomic<std::uint64_t> read;
  std::byte bytes[ring_bytes];
};

struct NcclLinks::Shared {  // and behind it ranks x ranks rings
  alignas(64) std::atomic<int> here;
};

// How far a message is: its tag comes first.
struct NcclLinks::Progress {
  const Message* message;
  Tag tag;
  std::size_t done = 0;

  std::size_t total() const { return sizeof tag + message->tag.bytes; }
  std::byte* at(std::size_t& left) {
    const bool in_tag = done < sizeof tag;
    left = in_tag ? sizeof tag - done : total() - done;
    return in_tag ? reinterpret_cast<std::byte*>(&tag) + done
                  : static_cast<std::byte*>(message->memory) + (done - sizeof tag);
  }
};

std::string NcclLinks::make_name() {
  static int count = 0;
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  return fmt::format("/smlp-nccl-{}-{}-{}", getpid(), count++, now);
}

NcclLinks::NcclLinks(const std::string& name, int rank, int ranks)
    : rank_(rank), ranks_(ranks), bytes_(sizeof(Shared) + sizeof(Ring) * static_cast<std::size_t>(ranks * ranks)) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes_)) != 0)
    throw std::runtime_error("no memory to share between ranks");
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) throw std::runtime_error("no memory to share between ranks");
  shared_ = static_cast<Shared*>(memory);  // all zero
  ++shared_->here;
  const auto begin = std::chrono::steady_clock::now();
  while (shared_->here < ranks_ && std::chrono::steady_clock::now() < begin + patience) sched_yield();
  const bool all = shared_->here == ranks_;
  shm_unlink(name.c_str());
  if (!all) throw std::runtime_error(fmt::format("of {} ranks {} came", ranks_, shared_->here.load()));
}

NcclLinks::~NcclLinks() {
  if (shared_) munmap(shared_, bytes_);
}

NcclLinks::Ring& NcclLinks::ring(int from, int to) { return reinterpret_cast<Ring*>(shared_ + 1)[from * ranks_ + to]; }

bool NcclLinks::push(Progress& p) {
  Ring& to = ring(rank_, p.message->peer);
  std::size_t left = 0;
  const std::byte* from = p.at(left);
  const std::uint64_t at = to.written;
  const std::size_t count =
      std::min({left, ring_bytes - static_cast<std::size_t>(at - to.read), ring_bytes - at % ring_bytes});
  if (count == 0) return false;
  std::memcpy(to.bytes + at % ring_bytes, from, count);
  to.written = at + count;
  p.done += count;
  return true;
}

bool NcclLinks::pull(Progress& p, std::string& wrong) {
  Ring& from = ring(p.message->peer, rank_);
  std::size_t left = 0;
  std::byte* to = p.at(left);
  const std::uint64_t at = from.read;
  const std::size_t count = std::min({left, static_cast<std::size_t>(from.written - at), ring_bytes - at % ring_bytes});
  if (count == 0) return false;
  std::memcpy(to, from.bytes + at % ring_bytes, count);
  from.read = at + count;
  p.done += count;
  if (p.done == sizeof p.tag && p.tag != p.message->tag) {
    const Tag &got = p.tag, &wanted = p.message->tag;
    wrong = fmt::format("rank {} expects of rank {} call {} (number {}, type {}, operation {}, root {}) of {} bytes, "
                        "and gets call {} (number {}, type {}, operation {}, root {}) of {}",
                        rank_, p.message->peer, wanted.call, wanted.number, wanted.type, wanted.op, wanted.root,
                        wanted.bytes, got.call, got.number, got.type, got.op, got.root, got.bytes);
  }
  return true;
}

std::string NcclLinks::exchange(const std::vector<Message>& out, const std::vector<Message>& in) {
  std::vector<Progress> sends, receives;
  for (const auto& message : out) sends.push_back({&message, message.tag});
  for (const auto& message : in) receives.push_back({&message, {}});
  std::string wrong;
  auto last = std::chrono::steady_clock::now();
  // Of several messages to one peer, or from it, the first goes first.
  const auto advance = [&](std::vector<Progress>& all, auto step) {
    bool moved = false, open = false;
    std::vector<bool> busy(static_cast<std::size_t>(ranks_));
    for (auto& one : all) {
      const auto peer = static_cast<std::size_t>(one.message->peer);
      if (one.done == one.total() || busy[peer]) continue;
      while (one.done < one.total() && wrong.empty() && step(one)) moved = true;
      busy[peer] = one.done < one.total();
      open = open || busy[peer];
    }
    if (moved) last = std::chrono::steady_clock::now();
    return open;
  };
  for (;;) {
    const bool sending = advance(sends, [&](Progress& one) { return push(one); });
    const bool receiving = advance(receives, [&](Progress& one) { return pull(one, wrong); });
    if (!wrong.empty() || (!sending && !receiving)) return wrong;
    if (std::chrono::steady_clock::now() > last + patience)
      return fmt::format("rank {} waits for a peer in vain", rank_);
    sched_yield();
  }
}

}  // namespace smlp::emulation
