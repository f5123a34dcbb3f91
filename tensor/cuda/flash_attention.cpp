#include "tensor/cuda/flash_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <exception>

#include "core/error.h"
#include "tensor/cuda/check.h"

namespace smlp::cuda {

namespace {

// A deterministic backward pass may keep a square of scores for each head. Calls that ask for more than this part of the
// device's memory are cut; one head never is: the products between which the softmax stands would take several times as
// much for it.
constexpr std::int64_t workspace_share = 64, always_workspace_bytes = std::int64_t{256} << 20;
constexpr std::int64_t alignment = 256;
constexpr std::int64_t pack_bytes = 16;  // that kernels load at a time, without looking

std::int64_t largest_divisor(std::int64_t number, std::int64_t most) {
  for (std::int64_t n = std::clamp<std::int64_t>(most, 1, number); n > 1; --n) {
    if (number % n == 0) return n;
  }
  return 1;
}

bool in_packs(const void* memory) { return reinterpret_cast<std::intptr_t>(memory) % pack_bytes == 0; }
bool in_packs(const HeadTensor& t, std::int64_t size) {
  return in_packs(t.data) && (t.sequence * size | t.head * size | t.token * size) % pack_bytes == 0;
}

// What no library takes, whatever its version; null: nothing.
const char* rule_against(const FlashCall& call) {
  if (call.type != DType::bf16 && call.type != DType::f16) return "its flash form is for bf16 and f16";
  if (call.width % 8 != 0) return "the width of a head is no multiple of 8";
  if (call.length < 2) return "there is one token alone";
  bool whole = in_packs(call.log_sum);
  for (const auto tensor : FlashCall::tensors) whole = whole && in_packs(call.*tensor, size_of(call.type));
  return whole ? nullptr : "a row does not begin at a multiple of 16 bytes";
}

HeadTensor moved(const HeadTensor& t, std::int64_t bytes_of_one, std::int64_t sequence, std::int64_t head) {
  HeadTensor part = t;
  if (t.data != nullptr) {
    part.data = static_cast<std::byte*>(t.data) + (sequence * t.sequence + head * t.head) * bytes_of_one;
  }
  return part;
}

std::int64_t most_workspace_bytes() {
  std::size_t free = 0, all = 0;
  check(cudaMemGetInfo(&free, &all), "the device does not say how much memory it has");
  return std::max(always_workspace_bytes, static_cast<std::int64_t>(all) / workspace_share);
}

}  // namespace

FlashCall FlashCall::part(std::int64_t sequence, std::int64_t head, std::int64_t some, std::int64_t some_heads) const {
  FlashCall part = *this;
  part.sequences = some;
  part.heads = some_heads;
  for (const auto tensor : tensors) part.*tensor = moved(this->*tensor, size_of(type), sequence, head);
  part.log_sum = log_sum + (sequence * heads + head) * length;
  return part;
}

std::string too_old_for(const CudnnVersions& version, const FlashCall& call) {
  if (version.library >= 91501 && version.front_end >= 11600) return "";
  if (call.length % 128 == 0) return "";
  return fmt::format("cuDNN before 9.15.1, or with a front end before 1.16, is not to be trusted with sequences of {} tokens, "
                     "which is no multiple of 128",
                     call.length);
}

bool FlashAttention::run(const FlashCall& call, Arena& scratch) {
  if (const char* rule = rule_against(call)) {
    refused(rule);
    return false;
  }
  if (!library_is_there()) return false;
  Plan& plan = plan_of(call);
  if (!plan.kernels) return false;
  try {
    void* workspace = nullptr;
    if (const std::int64_t bytes = plan.kernels->workspace_bytes(); bytes > 0) {
      workspace = scratch.take({bytes + alignment}, DType::u8).data;
      std::size_t room = static_cast<std::size_t>(bytes + alignment);
      std::align(alignment, static_cast<std::size_t>(bytes), workspace, room);
    }
    for (std::int64_t b = 0; b < call.sequences; b += plan.sequences) {
      for (std::int64_t h = 0; h < call.heads; h += plan.heads)
        plan.kernels->run(call.part(b, h, plan.sequences, plan.heads), workspace);
    }
    served_ = true;
    return true;
  } catch (const std::exception& error) {
    if (is_recorded(stream_)) throw;  // and was no trouble before
    refused(error.what());
    plan.kernels = nullptr;
    return false;
  }
}

std::string FlashAttention::sentence() const {
  if (served_ && against_.empty()) return fmt::format("attention is computed by {}", library_->name());
  if (against_.empty()) return "";
  const std::string products = "attention is computed by products and a softmax between them";
  if (served_) return fmt::format("{} where {} can't: {}", products, library_->name(), against_);
  return fmt::format("{}, not by cuDNN: {}", products, against_);
}

void FlashAttention::refused(const std::string& why) {
  if (against_.empty()) against_ = why;
}

bool FlashAttention::library_is_there() {
  if (asked_) return library_ != nullptr;
  asked_ = true;
  try {
    library_ = make_flash_library(stream_);
  } catch (const std::exception& error) {
    refused(error.what());
  }
  return library_ != nullptr;
}

FlashAttention::Key FlashAttention::key_of(const FlashCall& call) {
  Key key{static_cast<std::int64_t>(call.type), call.backward(), call.sequences,
          call.heads,                           call.length,     call.width,
          std::bit_cast<std::int32_t>(call.scale),           call.deterministic};
  auto* next = &key[8];
  for (const auto tensor : FlashCall::tensors) {
    for (const auto stride : {&HeadTensor::sequence, &HeadTensor::head, &HeadTensor::token})
      *next++ = (call.*tensor).*stride;
  }
  return key;
}

FlashAttention::Plan& FlashAttention::plan_of(const FlashCall& call) {
  const Key key = key_of(call);
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  expect_not_recorded(stream_, "attention is planned");
  Plan plan;
  try {
    plan = make(call);
  } catch (const std::exception& error) {
    refused(error.what());
  }
  return plans_.emplace(key, std::move(plan)).first->second;
}

FlashAttention::Plan FlashAttention::make(const FlashCall& call) {
  Plan plan{nullptr, call.sequences, call.heads};
  const std::int64_t most_bytes = most_workspace_bytes();
  for (;;) {
    plan.kernels = library_->plan(call.part(0, 0, plan.sequences, plan.heads));
    const std::int64_t bytes = plan.kernels->workspace_bytes();
    if (bytes <= most_bytes || (plan.sequences == 1 && plan.heads == 1)) return plan;
    std::int64_t& cut = plan.sequences > 1 ? plan.sequences : plan.heads;
    const std::int64_t most = std::min(cut - 1, cut * most_bytes / bytes);
    cut = largest_divisor(plan.sequences > 1 ? call.sequences : call.heads, most);
    if (plan.sequences * plan.heads * call.length * 4 % pack_bytes != 0) {
      throw Error(ExitCode::unavailable,
                  fmt::format("its workspace of {} bytes is too large, and sequences of {} tokens can't be computed in parts",
                              bytes, call.length));
    }
  }
}

}  // namespace smlp::cuda
