// Attention in its flash form, in which scores never reach memory: by a library (cuDNN), where it was built in, is
// found when the first attention comes, and takes the call. Where it does not, the caller has products for it.
// Owned by the backend; used by one thread. Which way a call goes depends on its types, shapes, strides and alignment,
// on the device and the library, and on whether there was memory for the workspace; not on the calls before it.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tensor/arena.h"

namespace smlp::cuda {

// [sequences, heads, length, width], the last dimension contiguous; strides in elements.
struct HeadTensor {
  void* data = nullptr;
  std::int64_t sequence = 0, head = 0, token = 0;
};

// Causal attention as in tensor/backend.h; the backward pass where dout has memory.
struct FlashCall {
  DType type = DType::f32;
  std::int64_t sequences = 0, heads = 0, length = 0, width = 0;  // width: of one head
  float scale = 1;                                               // of the scores, before the softmax
  bool deterministic = true;                                     // the same bits each time
  HeadTensor query{}, key{}, value{}, out{};
  float* log_sum = nullptr;  // [sequences, heads, length], contiguous: log of a row's sum of exp(scale · q · k)
  HeadTensor dout{}, dquery{}, dkey{}, dvalue{};

  bool backward() const { return dout.data != nullptr; }
  std::array<HeadTensor FlashCall::*, 8> static constexpr tensors = {
      &FlashCall::query, &FlashCall::key,    &FlashCall::value, &FlashCall::out,
      &FlashCall::dout,  &FlashCall::dquery, &FlashCall::dkey,  &FlashCall::dvalue};
  // `some_heads` heads from `head` on of `some` sequences from `sequence` on.
  FlashCall part(std::int64_t sequence, std::int64_t head, std::int64_t some, std::int64_t some_heads) const;
};

// Kernels for calls that differ in nothing but their addresses.
class FlashPlan {
 public:
  virtual ~FlashPlan() = default;
  virtual std::int64_t workspace_bytes() const = 0;
  // Enqueues the call; workspace: 256-byte aligned. Throws where the library fails.
  virtual void run(const FlashCall& call, void* workspace) = 0;
};

// The library: cudnn.cpp, no_cudnn.cpp, or plain loops in tests/cuda_emulation.
class FlashLibrary {
 public:
  virtual ~FlashLibrary() = default;
  virtual std::string name() const = 0;                                  // "cuDNN 9.19.0"
  virtual std::unique_ptr<FlashPlan> plan(const FlashCall& call) = 0;  // throws where the call is not for it
};
// As they number themselves: 91501 is 9.15.1, 11600 is 1.16.0.
struct CudnnVersions {
  std::size_t library = 0, front_end = 0;
};
// Why cuDNN of these versions is not asked for what it says it can; empty: it is.
std::string too_old_for(const CudnnVersions& version, const FlashCall& call);
// Throws Error(unavailable) where there is none, with a sentence's second half: "libcudnn.so.9 is not here".
std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t stream);

class FlashAttention {
 public:
  explicit FlashAttention(cudaStream_t stream) : stream_(stream) {}

  // Enqueues the call, with workspace from `scratch`. False: it has to be computed in another way, whole, for part of
  // it may have been done.
  bool run(const FlashCall& call, Arena& scratch);
  // For a log: who computes attention, and what first spoke against the library; empty before run().
  std::string sentence() const;

 private:
  struct Plan {
    std::unique_ptr<FlashPlan> kernels;  // null: refused
    std::int64_t sequences = 0, heads = 0;  // that they take at once
  };
  using Key = std::array<std::int64_t, 32>;

  static Key key_of(const FlashCall& call);
  bool library_is_there();
  Plan& plan_of(const FlashCall& call);
  Plan make(const FlashCall& call);
  void refused(const std::string& why);

  cudaStream_t stream_;
  bool asked_ = false, served_ = false;
  std::string against_;  // what first spoke against it
  std::unique_ptr<FlashLibrary> library_;
  std::map<Key, Plan> plans_;
};

}  // namespace smlp::cuda
