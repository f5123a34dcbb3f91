// Causal token mixing: a product in row blocks of the lower triangle. Wide groups of channels are multiplied where they
// lie, all sequences at once. Of narrow ones (an expert of 32 channels) each sequence alone is too little for a product:
// what a group has in all sequences is first brought together, and all groups are multiplied at once.
#include <algorithm>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

// A row block reads all rows before its end once more. Of 16-bit numbers a card multiplies so many while it reads one that
// blocks of 512 cost half of those of 128, though they waste more on zeros (docs/decisions/0017). Of f32 it multiplies a
// fifteenth as fast, or half as fast by TF32.
std::int64_t rows_of_block(DType type) { return type == DType::f32 ? 128 : 512; }
constexpr std::int64_t narrow_channels = 128;  // fewer fill no tile of a product
constexpr std::int64_t most_panel_bytes = std::int64_t{64} << 20;
constexpr std::int64_t most_weight_bytes = std::int64_t{128} << 20;  // masked at once

// body(first position, positions) for each row block of the triangle.
template <class Body>
void for_row_blocks(DType type, std::int64_t length, Body body) {
  const std::int64_t rows = rows_of_block(type);
  for (std::int64_t t = 0; t < length; t += rows) body(t, std::min(rows, length - t));
}

// Matrices [length, width], a row a position.
struct Positions {
  void* data;
  std::int64_t stride, apart;  // from row to row, from matrix to matrix
  void* row(std::int64_t i, std::int64_t t, DType type) const {
    return static_cast<std::byte*>(data) + (i * apart + t * stride) * size_of(type);
  }
  Positions from(std::int64_t i, DType type) const { return {row(i, 0, type), stride, apart}; }
};

Positions group_of(const TensorView& view, const SpatialSizes& s, std::int64_t g) {
  return {view.at(g * s.channels), view.stride[1], view.stride[0]};
}

// `count` matrices [length, width] and one weight for all of them, or for each its own.
struct Mixing {
  DType type;
  std::int64_t count, length, width;
  bool own_weights;
};

// out = lower triangle of weight · in, or with `transposed` that of its transpose.
void mix(Products& products, const Mixing& m, const void* weight, const Positions& in, const Positions& out,
         bool transposed) {
  const Positions lower{const_cast<void*>(weight), m.length, m.own_weights ? m.length * m.length : 0};
  for_row_blocks(m.type, m.length, [&](std::int64_t t, std::int64_t rows) {
    const std::int64_t first = transposed ? t : 0;  // of the positions that count
    const void* block = lower.row(0, t, m.type);
    products.run({.m = rows,
                  .n = m.width,
                  .k = transposed ? m.length - t : t + rows,
                  .a = static_cast<const std::byte*>(block) + first * size_of(m.type),
                  .b = in.row(0, first, m.type),
                  .a_stride = lower.stride,
                  .b_stride = in.stride,
                  .transpose_a = transposed,
                  .out = {out.row(0, t, m.type), rows, m.width, out.stride},
                  .type = m.type,
                  .out_type = m.type,
                  .batch = m.count,
                  .a_apart = lower.apart,
                  .b_apart = in.apart,
                  .out_apart = out.apart});
  });
}

std::int64_t panel_floats(const Mixing& m) { return std::min(rows_of_block(m.type), m.length) * m.length; }
std::int64_t panels_at_once(const Mixing& m) {
  return std::clamp<std::int64_t>(most_panel_bytes / (panel_floats(m) * 4), 1, m.count);
}

// The lower triangle of gradient += dout · inᵀ: one panel a matrix, as many as fit, each then added to the gradient of its
// own, or their sum in order to the one for all: every gradient has one writer.
void add_gradients(cudaStream_t stream, Products& products, const Mixing& m, const Positions& dout,
                   const Positions& in, float* panel, const Positions& gradient) {
  const std::int64_t apart = panel_floats(m), panels = panels_at_once(m);
  for_row_blocks(m.type, m.length, [&](std::int64_t t, std::int64_t rows) {
    for (std::int64_t i = 0; i < m.count; i += panels) {
      const std::int64_t some = std::min(panels, m.count - i), keys = t + rows;
      products.run({.m = rows,
                    .n = keys,
                    .k = m.width,
                    .a = dout.row(i, t, m.type),
                    .b = in.row(i, 0, m.type),
                    .a_stride = dout.stride,
                    .b_stride = in.stride,
                    .transpose_b = true,
                    .out = {panel, rows, keys, m.length},
                    .type = m.type,
                    .out_type = DType::f32,
                    .batch = some,
                    .a_apart = dout.apart,
                    .b_apart = in.apart,
                    .out_apart = apart});
      add_lower(stream, {.panel = panel,
                         .panels = m.own_weights ? 1 : some,
                         .panel_stride = m.length,
                         .panel_apart = apart,
                         .out = static_cast<float*>(gradient.row(m.own_weights ? i : 0, t, DType::f32)),
                         .count = m.own_weights ? some : 1,
                         .out_apart = gradient.apart,
                         .out_stride = gradient.stride,
                         .first = t,
                         .rows = rows});
    }
  });
}

bool narrow(const SpatialSizes& s) { return s.channels < narrow_channels && s.groups * s.sequences > 1; }

Mixing by_sequence(const SpatialSizes& s, DType type) {
  return {type, s.sequences, s.length, s.channels, false};
}
Mixing by_group(const SpatialSizes& s, DType type) {
  return {type, s.groups, s.length, s.sequences * s.channels, true};
}
Positions packed(const Mixing& m, void* data) { return {data, m.width, m.length * m.width}; }

}  // namespace

// The lower triangles of `count` weights and zeros, one behind the other.
void CudaBackend::mask(TensorView weight, std::int64_t first, std::int64_t count, std::int64_t length, void* masked) {
  copy_lower(stream(), weight.dtype,
             {weight.at(first * weight.stride[0]), count, length, weight.stride[1], weight.stride[0]}, masked);
}

void CudaBackend::mix_tokens(const SpatialSizes& s, TensorView weight, TensorView in, TensorView out, bool transposed) {
  same_type("spatial", {in, weight});
  if (in.size() == 0) return;
  const DType type = in.dtype;
  const std::int64_t size = size_of(type), weight_bytes = s.length * s.length * size;
  const std::int64_t together = narrow(s) ? std::clamp<std::int64_t>(most_weight_bytes / weight_bytes, 1, s.groups) : 1;
  begin();
  auto* masked = take<std::byte>(together * weight_bytes);
  if (narrow(s)) {
    Mixing m = by_group(s, type);
    auto *from = take<std::byte>(in.size() * size), *to = take<std::byte>(in.size() * size);
    const Positions packed_in = packed(m, from), packed_out = packed(m, to);
    pack_groups(stream(), type, s.groups, sequences("spatial", in), from);
    for (std::int64_t g = 0; g < s.groups; g += together) {
      m.count = std::min(together, s.groups - g);
      mask(weight, g, m.count, s.length, masked);
      mix(products_, m, masked, packed_in.from(g, type), packed_out.from(g, type), transposed);
    }
    return unpack_groups(stream(), type, s.groups, to, sequences("spatial", out));
  }
  for (std::int64_t g = 0; g < s.groups; ++g) {
    mask(weight, g, 1, s.length, masked);
    mix(products_, by_sequence(s, type), masked, group_of(in, s, g), group_of(out, s, g), transposed);
  }
}

void CudaBackend::spatial(const SpatialProduct& p) {
  float_type("spatial", p.v);
  mix_tokens(spatial_sizes("spatial", p), p.weight, p.v, p.out, false);
}

void CudaBackend::spatial_backward_input(const SpatialProduct& p) {
  float_type("spatial_backward_input", p.v);
  mix_tokens(spatial_sizes("spatial_backward_input", p), p.weight, p.out, p.v, true);
}

void CudaBackend::spatial_backward_weight(const SpatialProduct& p) {
  const char* verb = "spatial_backward_weight";
  float_type(verb, p.v);
  const SpatialSizes s = spatial_sizes(verb, p);
  require(p.weight.dtype == DType::f32, verb, "the weight's gradient must be f32");
  if (p.v.size() == 0) return;
  const DType type = p.v.dtype;
  const Mixing m = narrow(s) ? by_group(s, type) : by_sequence(s, type);
  begin();
  auto* panel = take<float>(panels_at_once(m) * panel_floats(m));
  const auto gradient = [&](std::int64_t g) {
    return Positions{p.weight.at(g * p.weight.stride[0]), p.weight.stride[1], p.weight.stride[0]};
  };
  if (narrow(s)) {
    const std::int64_t bytes = p.v.size() * size_of(type);
    auto *dout = take<std::byte>(bytes), *in = take<std::byte>(bytes);
    pack_groups(stream(), type, s.groups, sequences(verb, p.out), dout);
    pack_groups(stream(), type, s.groups, sequences(verb, p.v), in);
    return add_gradients(stream(), products_, m, packed(m, dout), packed(m, in), panel, gradient(0));
  }
  for (std::int64_t g = 0; g < s.groups; ++g)
    add_gradients(stream(), products_, m, group_of(p.out, s, g), group_of(p.v, s, g), panel, gradient(g));
}

}  // namespace smlp::cuda
