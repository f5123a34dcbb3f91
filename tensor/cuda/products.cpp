#include "tensor/cuda/products.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <optional>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/tell.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/grouped_products.h"
#include "tensor/cuda/product_end.h"
#include "tensor/cuda/product_plan.h"
#include "tensor/key_hash.h"

namespace smlp::cuda {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{64} << 20, most_plans = 4096;
constexpr std::int64_t large_product = std::int64_t{1} << 24;  // multiply-adds

}  // namespace

class Products::Library {
 public:
  Library(cudaStream_t stream, bool tf32, ProductEnds ends) : stream_(stream), tf32_(tf32), ends_(ends) {
    check(cublasLtCreate(&handle_), "it could not be started");
    check(cudaMalloc(&workspace_, workspace_bytes), "there is no memory for the workspace of products");
    grouped_.emplace(stream, tf32, workspace_, workspace_bytes);
  }
  ~Library() {
    grouped_.reset();
    cudaFree(workspace_);
    plans_.clear();
    cublasLtDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  void run(const Product& p) {
    run_with_end(
        stream_, p, ends_, [this](const Product& product) { return started(product); },
        [this](const Product& product) { run_plain(product); });
  }

  bool run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
    if (!library_may_group(p, groups) || !grouped_->run(alone(p), groups, table)) return false;
    end(stream_, p, static_cast<std::int64_t>(groups.size()), table);
    return true;
  }

 private:
  // A batch that the library can't do at once, one by one; what it has no algorithm for, as for numbers that lie on no more
  // than 2 bytes, without it.
  void run_plain(const Product& p) {
    if (started(p)) return;
    if (p.batch > 1) {
      for (std::int64_t i = 0; i < p.batch; ++i) run_plain(one_of(p, i));
      return;
    }
    const cublasStatus_t refusal = plan_of(p).refusal();
    if (refusal == CUBLAS_STATUS_NOT_SUPPORTED) {
      tell_of_plain(p);
      return multiply_plainly(stream_, p);
    }
    throw Error(ExitCode::fault, fmt::format("cuBLASLt failed to multiply {} x {} x {} in {} to {} ({})", p.m, p.n, p.k,
                                             name_of(p.type), name_of(p.out_type), cublasLtGetStatusString(refusal)));
  }

  // Once: what takes a thread a number is a hundred times slower, and nothing else would say why.
  void tell_of_plain(const Product& p) {
    if (p.m * p.n * p.k < large_product || std::exchange(told_of_plain_, true)) return;
    tell("cuBLASLt has no algorithm for {} x {} x {} in {} to {}: an own kernel computes it and its like, far slower", p.m,
         p.n, p.k, name_of(p.type), name_of(p.out_type));
  }

  ProductPlan& plan_of(const Product& p) {
    const ProductKind kind = kind_of(p);
    const auto found = plans_.find(kind);
    if (found != plans_.end()) return found->second;
    expect_not_recorded(stream_, "an algorithm for a product is chosen");
    if (plans_.size() == most_plans) plans_.clear();  // rows of experts that differ from step to step
    return plans_.emplace(kind, ProductPlan(handle_, p, tf32_, workspace_bytes)).first->second;
  }

  bool started(const Product& p) {
    return plan_of(p).start(handle_, p, {workspace_, workspace_bytes}, stream_);
  }

  cudaStream_t stream_;
  bool tf32_, told_of_plain_ = false;
  ProductEnds ends_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::unordered_map<ProductKind, ProductPlan, KeyHash> plans_;
  std::optional<GroupedProducts> grouped_;
};

Products::Products(cudaStream_t stream, bool tf32, ProductEnds ends)
    : library_(std::make_unique<Library>(stream, tf32, ends)) {}
Products::~Products() = default;

void Products::run(const Product& p) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return;
  library_->run(p);
}

bool Products::run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
  return library_->run_grouped(p, groups, table);
}

}  // namespace smlp::cuda
