// Causal token mixing: a product in row blocks of the lower triangle, all sequences at once.
#include <algorithm>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

constexpr std::int64_t block_rows = 128;
constexpr std::int64_t most_panel_bytes = std::int64_t{64} << 20;

// Position t and group g of the first sequence.
void* part(const TensorView& view, const SpatialSizes& s, std::int64_t g, std::int64_t t) {
  return view.at(t * view.stride[1] + g * s.channels);
}

// body(first position, positions) for each row block of the triangle.
template <class Body>
void for_row_blocks(std::int64_t length, Body body) {
  for (std::int64_t t = 0; t < length; t += block_rows) body(t, std::min(block_rows, length - t));
}

}  // namespace

// The lower triangle of weight[group] and zeros: [length, length], contiguous.
std::byte* CudaBackend::masked_weight(const SpatialProduct& p, std::int64_t group, std::int64_t length) {
  begin();
  auto* weight = take<std::byte>(length * length * size_of(p.weight.dtype));
  copy_lower(stream(), p.weight.dtype,
             {p.weight.at(group * p.weight.stride[0]), length, length, p.weight.stride[1]}, 0,
             {weight, length, length, length});
  return weight;
}

void CudaBackend::spatial(const SpatialProduct& p) {
  float_type("spatial", p.v);
  const SpatialSizes s = spatial_sizes("spatial", p);
  same_type("spatial", {p.v, p.weight});
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const auto* weight = masked_weight(p, g, s.length);
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      products_.run({.m = rows,
                     .n = s.channels,
                     .k = t + rows,
                     .a = weight + t * s.length * size,
                     .b = part(p.v, s, g, 0),
                     .a_stride = s.length,
                     .b_stride = p.v.stride[1],
                     .out = {part(p.out, s, g, t), rows, s.channels, p.out.stride[1]},
                     .type = p.v.dtype,
                     .out_type = p.v.dtype,
                     .batch = s.sequences,
                     .b_apart = p.v.stride[0],
                     .out_apart = p.out.stride[0]});
    });
  }
}

void CudaBackend::spatial_backward_input(const SpatialProduct& p) {
  float_type("spatial_backward_input", p.v);
  const SpatialSizes s = spatial_sizes("spatial_backward_input", p);
  same_type("spatial_backward_input", {p.v, p.weight});
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const auto* weight = masked_weight(p, g, s.length);
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      products_.run({.m = rows,
                     .n = s.channels,
                     .k = s.length - t,
                     .a = weight + (t * s.length + t) * size,
                     .b = part(p.out, s, g, t),
                     .a_stride = s.length,
                     .b_stride = p.out.stride[1],
                     .transpose_a = true,
                     .out = {part(p.v, s, g, t), rows, s.channels, p.v.stride[1]},
                     .type = p.v.dtype,
                     .out_type = p.v.dtype,
                     .batch = s.sequences,
                     .b_apart = p.out.stride[0],
                     .out_apart = p.v.stride[0]});
    });
  }
}

// One panel a sequence, as many as fit, then their sum in order: the weight's gradient has one writer.
void CudaBackend::spatial_backward_weight(const SpatialProduct& p) {
  float_type("spatial_backward_weight", p.v);
  const SpatialSizes s = spatial_sizes("spatial_backward_weight", p);
  require(p.weight.dtype == DType::f32, "spatial_backward_weight", "the weight's gradient must be f32");
  if (p.v.size() == 0) return;
  begin();
  const std::int64_t apart = std::min(block_rows, s.length) * s.length;
  const std::int64_t panels = std::clamp<std::int64_t>(most_panel_bytes / (apart * 4), 1, s.sequences);
  auto* panel = take<float>(panels * apart);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      const std::int64_t keys = t + rows;
      const Matrix to{p.weight.at(g * p.weight.stride[0] + t * p.weight.stride[1]), rows, keys,
                      p.weight.stride[1]};
      for (std::int64_t b = 0; b < s.sequences; b += panels) {
        const std::int64_t count = std::min(panels, s.sequences - b);
        products_.run({.m = rows,
                       .n = keys,
                       .k = s.channels,
                       .a = p.out.at(b * p.out.stride[0] + t * p.out.stride[1] + g * s.channels),
                       .b = p.v.at(b * p.v.stride[0] + g * s.channels),
                       .a_stride = p.out.stride[1],
                       .b_stride = p.v.stride[1],
                       .transpose_b = true,
                       .out = {panel, rows, keys, s.length},
                       .type = p.v.dtype,
                       .out_type = DType::f32,
                       .batch = count,
                       .a_apart = p.out.stride[0],
                       .b_apart = p.v.stride[0],
                       .out_apart = apart});
        add_lower(stream(), {panel, rows, keys, s.length}, count, apart, t, to);
      }
    });
  }
}

}  // namespace smlp::cuda
