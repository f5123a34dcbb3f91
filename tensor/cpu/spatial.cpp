// The causal token-mixing products, in row blocks of the lower triangle. The weight's blocks that the triangle cuts
// are completed with zeros in a copy of the triangle (once a call, for all sequences), so that every row block is one
// plain product over strided views.
#include <algorithm>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cpu {

namespace {

constexpr std::int64_t block_rows = 128;

// The part of sequence b and group g that starts at position t.
void* part(const TensorView& view, const SpatialSizes& s, std::int64_t b, std::int64_t g, std::int64_t t) {
  return view.at(b * view.stride[0] + t * view.stride[1] + g * s.channels);
}

}  // namespace

// The lower triangle of weight[g] with zeros to the end of each row's block; [length, length], contiguous.
void* CpuBackend::masked_weight(const TensorView& weight, std::int64_t g, std::int64_t length) {
  const std::int64_t size = size_of(weight.dtype);
  auto* masked = static_cast<std::byte*>(scratch(length * length * size));
  for (std::int64_t r = 0; r < length; r += block_rows) {
    const std::int64_t rows = std::min(block_rows, length - r);
    const Matrix from{weight.at(g * weight.stride[0] + r * weight.stride[1]), rows, r + rows, weight.stride[1]};
    kernels(weight.dtype).copy_lower(from, r, {masked + r * length * size, rows, r + rows, length});
  }
  return masked;
}

void CpuBackend::spatial(const SpatialProduct& p) {
  const SpatialSizes s = spatial_sizes("spatial", p);
  same_type("spatial", {p.v, p.weight, p.out});
  float_type("spatial", p.v);
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    auto* weight = static_cast<std::byte*>(masked_weight(p.weight, g, s.length));
    for (std::int64_t b = 0; b < s.sequences; ++b) {
      for (std::int64_t t = 0; t < s.length; t += block_rows) {
        const std::int64_t rows = std::min(block_rows, s.length - t);
        products_.run({.m = rows, .n = s.channels, .k = t + rows,
                       .a = weight + t * s.length * size, .b = part(p.v, s, b, g, 0),
                       .a_stride = s.length, .b_stride = p.v.stride[1],
                       .out = {part(p.out, s, b, g, t), rows, s.channels, p.out.stride[1]},
                       .type = p.v.dtype, .out_type = p.v.dtype});
      }
    }
  }
}

void CpuBackend::spatial_backward_input(const SpatialProduct& p) {
  const SpatialSizes s = spatial_sizes("spatial_backward_input", p);
  same_type("spatial_backward_input", {p.v, p.weight, p.out});
  float_type("spatial_backward_input", p.v);
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    auto* weight = static_cast<std::byte*>(masked_weight(p.weight, g, s.length));
    for (std::int64_t b = 0; b < s.sequences; ++b) {
      for (std::int64_t t = 0; t < s.length; t += block_rows) {
        const std::int64_t rows = std::min(block_rows, s.length - t);
        products_.run({.m = rows, .n = s.channels, .k = s.length - t,
                       .a = weight + (t * s.length + t) * size, .b = part(p.out, s, b, g, t),
                       .a_stride = s.length, .b_stride = p.out.stride[1], .transpose_a = true,
                       .out = {part(p.v, s, b, g, t), rows, s.channels, p.v.stride[1]}, .type = p.v.dtype,
                       .out_type = p.v.dtype});
      }
    }
  }
}

void CpuBackend::spatial_backward_weight(const SpatialProduct& p) {
  const SpatialSizes s = spatial_sizes("spatial_backward_weight", p);
  same_type("spatial_backward_weight", {p.v, p.out});
  float_type("spatial_backward_weight", p.v);
  require(p.weight.dtype == wide_type(p.v.dtype), "spatial_backward_weight",
          "the weight's gradient must be f64 for f64 values and f32 for others");
  if (p.v.size() == 0) return;
  const DType wide = p.weight.dtype;
  void* panel = scratch(std::min(block_rows, s.length) * s.length * size_of(wide));
  for (std::int64_t g = 0; g < s.groups; ++g) {
    for (std::int64_t t = 0; t < s.length; t += block_rows) {
      const std::int64_t rows = std::min(block_rows, s.length - t);
      for (std::int64_t b = 0; b < s.sequences; ++b) {
        products_.run({.m = rows, .n = t + rows, .k = s.channels,
                       .a = part(p.out, s, b, g, t), .b = part(p.v, s, b, g, 0),
                       .a_stride = p.out.stride[1], .b_stride = p.v.stride[1], .transpose_b = true,
                       .accumulate = b > 0, .out = {panel, rows, t + rows, s.length}, .type = p.v.dtype, .out_type = wide});
      }
      const Matrix to{p.weight.at(g * p.weight.stride[0] + t * p.weight.stride[1]), rows, t + rows,
                      p.weight.stride[1]};
      kernels(wide).add_lower({panel, rows, t + rows, s.length}, t, to);
    }
  }
}

}  // namespace smlp::cpu
