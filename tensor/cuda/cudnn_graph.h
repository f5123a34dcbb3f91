// Attention as a graph of cuDNN, in the terms of its C++ front end: what tensor/cuda/cudnn.cpp builds and runs on a GPU, and
// tests build for GPUs that are described to them. Included by what may take a minute to compile, and by nothing else.
// Tensors are numbered by their places in FlashCall::tensors, from 1 on; the sums of rows come after them.
#pragma once

#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "tensor/cuda/flash_attention.h"

namespace smlp::cuda {

// Opens the library, which stays open: as the loader finds it, or where it was when this program was built. Throws
// Error(unavailable), with a sentence's second half, where it is in neither place or too old.
void open_cudnn();

inline void check_cudnn(cudnn_frontend::error_t status) {
  if (status.is_good()) return;
  const std::string words = status.get_message();
  throw Error(ExitCode::unavailable, "cuDNN: " + words.substr(0, words.find('\n')));
}

inline const std::vector<cudnn_frontend::HeurMode_t> cudnn_heuristics = {cudnn_frontend::HeurMode_t::A,
                                                                         cudnn_frontend::HeurMode_t::FALLBACK};

class AttentionGraph {
 public:
  static constexpr std::int64_t number(std::size_t place) { return static_cast<std::int64_t>(place) + 1; }
  static constexpr std::int64_t log_sum = 9;

  // Puts what the call computes into an empty graph.
  static void put(const FlashCall& call, cudnn_frontend::graph::Graph& graph) {
    const auto type = call.type == DType::bf16 ? DataType::BFLOAT16 : DataType::HALF;
    graph.set_io_data_type(type)
        .set_intermediate_data_type(DataType::FLOAT)
        .set_compute_data_type(DataType::FLOAT);
    AttentionGraph attention(graph, call);
    call.backward() ? attention.add_backward() : attention.add_forward();
  }

 private:
  AttentionGraph(cudnn_frontend::graph::Graph& graph, const FlashCall& call) : graph_(graph), call_(call) {}

  using DataType = cudnn_frontend::DataType_t;
  using Attributes = cudnn_frontend::graph::Tensor_attributes;
  using Tensor = std::shared_ptr<Attributes>;
  enum : std::size_t { query, key, value, out, dout, dquery, dkey, dvalue };  // places in FlashCall::tensors

  // Earlier tokens and itself: the band right of the diagonal is empty.
  template <class Pass>
  Pass causal(const char* name) const {
    Pass pass;
    pass.set_name(name)
        .set_attn_scale(call_.scale)
        .set_diagonal_alignment(cudnn_frontend::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    return pass;
  }

  Attributes& shape(Attributes& tensor, std::size_t place) const {
    const HeadTensor& t = call_.*FlashCall::tensors[place];
    return tensor.set_uid(number(place))
        .set_dim({call_.sequences, call_.heads, call_.length, call_.width})
        .set_stride({t.sequence, t.head, t.token, 1});
  }
  Attributes& shape_of_sums(Attributes& tensor) const {
    return tensor.set_uid(log_sum)
        .set_data_type(DataType::FLOAT)
        .set_dim({call_.sequences, call_.heads, call_.length, 1})
        .set_stride({call_.heads * call_.length, call_.length, 1, 1});
  }

  Tensor input(std::size_t place) {
    Attributes tensor;
    return graph_.tensor(shape(tensor, place).set_name(fmt::format("tensor_{}", number(place))));
  }
  void output(std::size_t place, const Tensor& tensor) { shape(*tensor, place).set_output(true); }

  void add_forward() {
    auto pass = causal<cudnn_frontend::graph::SDPA_attributes>("attention");
    auto [made, sums] = graph_.sdpa(input(query), input(key), input(value), pass.set_generate_stats(true));
    output(out, made);
    shape_of_sums(*sums).set_output(true);
  }

  void add_backward() {
    Attributes tensor;
    const Tensor sums = graph_.tensor(shape_of_sums(tensor).set_name("log_sum"));
    auto pass = causal<cudnn_frontend::graph::SDPA_backward_attributes>("attention_backward");
    auto [of_query, of_key, of_value] =
        graph_.sdpa_backward(input(query), input(key), input(value), input(out), input(dout), sums,
                             pass.set_deterministic_algorithm(call_.deterministic));
    output(dquery, of_query);
    output(dkey, of_key);
    output(dvalue, of_value);
  }

  cudnn_frontend::graph::Graph& graph_;
  const FlashCall& call_;
};

}  // namespace smlp::cuda
