// Products of several sizes in one call: cuBLAS, in toolkits that have it (12.5). Owned by Products.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <span>

#include "tensor/cuda/products.h"

namespace smlp::cuda {

class GroupedProducts {
 public:
  // Shares the workspace of other products of this stream.
  GroupedProducts(cudaStream_t stream, bool tf32, void* workspace, std::size_t workspace_bytes);
  ~GroupedProducts();
  // alone(p) for each group, of those that library_may_group(). False where this library, or this card, has
  // none: the first refusal is the last question.
  bool run(const Product& p, std::span<const RowGroup> groups, const GroupTable& table);

 private:
  class Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smlp::cuda
