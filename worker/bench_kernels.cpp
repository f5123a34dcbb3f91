// `bench kernels`: every product and row kernel of a training step of the job's dense blocks, gMLP's or a Transformer's, and
// what its blocks with experts have beside those (the experts' products, token mixing of narrow groups, the assignment), at the
// job's sizes, beside its floor: the longer of what its operations take at the rate of a large product and what its bytes take
// at the rate of adding two long vectors, both of the same run. Attention and the spatial product are there for all jobs, to be
// compared; what no step calls has calls_per_step 0.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"
#include "tensor/arena.h"
#include "worker/bench.h"
#include "worker/engine.h"
#include "worker/machine_limits.h"
#include "worker/stopwatch.h"

namespace smlp {

namespace {

enum class Blocks { dense, sparse };

struct Kernel {
  std::string name;
  double calls;  // in a step
  double flops;  // of one call; 0: bound by memory
  double bytes;  // read and written by one call
  std::function<void()> run;
  Blocks of = Blocks::dense;
  int repeats = 1;  // in one measurement
  double least = std::numeric_limits<double>::max();
};

// On a device one call is over before its clock has moved.
constexpr double device_seconds = 2e-3;
constexpr double most_repeats = 1000;

class KernelBench {
 public:
  explicit KernelBench(const JobConfig& job) : job_(job), backend_(make_backend(job)), arena_(*backend_) {
    add_products();
    add_spatial("spatial", gates_, {1, sequences_, half_});
    add_attention();
    add_rows();
    if (job_.model.sparse_blocks > 0) add_sparse();
    for (auto& kernel : kernels_) kernel.calls *= static_cast<double>(micro_batches_of_step(job_, job_.cluster.ranks));
    add_update();
  }

  void measure(const BenchOptions& options, nlohmann::json& result);

 private:
  using Size = std::int64_t;

  struct Groups {
    Size count, sequences, channels;  // channels: of one
  };
  void time_in_turns(double at_least);
  // The limits of the machine: floating-point operations and bytes a second.
  void report(double product_limit, double memory_limit, nlohmann::json& result) const;
  TensorView take(Shape shape, DType type, double value = 0.01) {
    const TensorView view = arena_.take(shape, type);
    backend_->fill(view, value);
    return view;
  }
  TensorView values(Shape shape) {
    const TensorView view = arena_.take(shape, type_);
    draw(*backend_, view, ++drawn_);
    return view;
  }
  TensorView wide(Shape shape) { return take(shape, wide_); }
  void add_products();
  void add_spatial(const std::string& name, double calls, const Groups& groups);
  void add_attention();
  void add_rows();
  void add_update();
  void add_sparse();
  void add_experts(Size experts, Size rows);
  void add_squares(const Groups& groups);
  void add_assignment();
  void add_router();
  void product(const std::string& name, double calls, const Matmul& m, const std::vector<Size>& rows_of_experts = {});
  void memory(const std::string& name, double calls, double elements, std::function<void()> run) {
    kernels_.push_back({name, calls, 0, elements * static_cast<double>(size_of(type_)), std::move(run)});
  }

  const JobConfig& job_;
  std::unique_ptr<Backend> backend_;
  Arena arena_;
  DType type_ = value_type(job_), wide_ = wide_type(type_);
  Size length_ = job_.model.context, width_ = job_.model.width, hidden_ = job_.model.hidden, half_ = hidden_ / 2;
  Size sequences_ = job_.train.micro_batch, tokens_ = sequences_ * length_, vocabulary_ = job_.model.vocabulary;
  double blocks_ = static_cast<double>(job_.model.dense_blocks);
  bool attends_ = has_attention(model_config(job_));
  double gates_ = attends_ ? 0 : blocks_, attentions_ = attends_ ? blocks_ : 0;
  Size inner_ = attends_ ? hidden_ : half_;  // what a block's last product reads
  Blocks adding_ = Blocks::dense;
  std::uint64_t drawn_ = 0;
  std::vector<Kernel> kernels_;
};

void KernelBench::product(const std::string& name, double calls, const Matmul& m, const std::vector<Size>& rows_of_experts) {
  const double flops = 2 * static_cast<double>(m.a.size()) * static_cast<double>(m.out.width());
  const std::int64_t kept = m.pre_activation ? m.pre_activation.bytes() : 0;
  const double bytes = static_cast<double>(m.a.bytes() + m.b.bytes() + m.out.bytes() + kept);
  const auto run = [=, this] { rows_of_experts.empty() ? backend_->matmul(m) : backend_->matmul_grouped(m, rows_of_experts); };
  kernels_.push_back({name, calls, flops, bytes, run, adding_});
}

// What a product writes is nowhere read: numbers that grow from call to call would end as infinities, which a GPU multiplies
// faster than others.
void KernelBench::add_products() {
  const TensorView x = values({tokens_, width_}), dy = values({tokens_, width_}), dh = values({tokens_, hidden_});
  const TensorView pre = values({tokens_, hidden_}), gated = values({tokens_, inner_});
  const TensorView y = values({tokens_, width_}), h = values({tokens_, hidden_}), dgated = values({tokens_, inner_});
  const TensorView in = values({hidden_, width_}), in_bias = values({hidden_});
  const TensorView out = values({width_, inner_}), out_bias = values({width_});
  const TensorView din = wide({hidden_, width_}), dout = wide({width_, inner_});
  const TensorView din_bias = wide({hidden_}), dout_bias = wide({width_});
  product("in: x · W^T", 0, {.a = x, .b = in, .out = h, .transpose_b = true});  // to compare
  product("in: + bias", gates_, {.a = x, .b = in, .out = h, .transpose_b = true, .bias = in_bias});
  product("in: + bias, gelu", blocks_ - gates_, {.a = x, .b = in, .out = h, .transpose_b = true, .bias = in_bias,
                                                 .activation = Activation::gelu_tanh, .pre_activation = pre});
  product("out: x · W^T + bias + residual", blocks_,
          {.a = gated, .b = out, .out = y, .transpose_b = true, .bias = out_bias, .residual = x});
  product("out: dx = dy · W", gates_, {.a = dy, .b = out, .out = dgated});
  if (attends_) {  // what the last product reads comes from an activation
    product("out: dx = gelu' · (dy · W)", blocks_, {.a = dy, .b = out, .out = dgated, .activation = Activation::gelu_tanh,
                                                    .pre_activation = pre, .activation_backward = true});
  }
  product("out: dW += dy^T · x, db += dy", blocks_,
          {.a = dy, .b = gated, .out = dout, .transpose_a = true, .accumulate = true, .bias_gradient = dout_bias});
  product("in: dx = dy · W", blocks_, {.a = dh, .b = in, .out = y});
  product("in: dW += dy^T · x, db += dy", blocks_,
          {.a = dh, .b = x, .out = din, .transpose_a = true, .accumulate = true, .bias_gradient = din_bias});
  product("in: dW += dy^T · x", 0, {.a = dh, .b = x, .out = din, .transpose_a = true, .accumulate = true});  // to compare

  if (attends_) {  // query, key, value and what comes of them
    const TensorView square = values({width_, width_}), dsquare = wide({width_, width_});
    product("attention: x · W^T + bias", 4 * blocks_, {.a = x, .b = square, .out = y, .transpose_b = true, .bias = out_bias});
    product("attention: dx = dy · W", 4 * blocks_, {.a = dy, .b = square, .out = y});
    product("attention: dW += dy^T · x, db += dy", 4 * blocks_,
            {.a = dy, .b = x, .out = dsquare, .transpose_a = true, .accumulate = true, .bias_gradient = dout_bias});
  }

  const Size rows = std::min<Size>(backend_->rows_at_once(), tokens_);
  const double chunks = static_cast<double>(tokens_) / static_cast<double>(rows);
  const TensorView logits = values({rows, vocabulary_}), dlogits = values({rows, vocabulary_});
  const TensorView table = values({vocabulary_, width_}), dtable = wide({vocabulary_, width_});
  const TensorView part = x.row_range(0, rows), dpart = y.row_range(0, rows);
  product("head: x · E^T", chunks, {.a = part, .b = table, .out = logits, .transpose_b = true});
  product("head: dx = dlogits · E", chunks, {.a = dlogits, .b = table, .out = dpart});
  product("head: dE += dlogits^T · x", chunks,
          {.a = dlogits, .b = part, .out = dtable, .transpose_a = true, .accumulate = true});
  const TensorView targets = take({rows}, DType::i32, 1), loss = take({rows}, DType::f64), scale = take({1}, DType::f64);
  memory("cross entropy", chunks, 3.0 * static_cast<double>(logits.size()),
         [=, this] { backend_->cross_entropy(logits, targets, loss, scale, true); });
}

void KernelBench::add_spatial(const std::string& name, double calls, const Groups& groups) {
  const TensorView weight = values({groups.count, length_, length_}), dweight = wide({groups.count, length_, length_});
  const Shape positions{groups.sequences, length_, groups.count * groups.channels};
  const TensorView v = values(positions), dz = values(positions), z = values(positions);
  const double pairs = static_cast<double>(length_) * static_cast<double>(length_ + 1) / 2;
  const double flops = 2 * pairs * static_cast<double>(groups.sequences * positions[2]);
  const double bytes = static_cast<double>(2 * v.bytes()) + pairs * static_cast<double>(groups.count * size_of(type_));
  const auto add = [&](const std::string& what, std::function<void()> run) {
    kernels_.push_back({name + what, calls, flops, bytes, std::move(run), adding_});
  };
  add("", [=, this] { backend_->spatial({weight, v, z}); });
  add(", input's gradient", [=, this] { backend_->spatial_backward_input({weight, z, dz}); });
  add(", weight's gradient", [=, this] { backend_->spatial_backward_weight({dweight, v, dz}); });
}

// Of a job without attention: heads of 64 channels. Work counts the causal half; the backward pass makes the probabilities
// again, which does not count.
void KernelBench::add_attention() {
  const Size heads = attends_ ? job_.model.heads : width_ % 64 == 0 ? width_ / 64 : 1;
  const auto rows = [this] { return values({sequences_, length_, width_}); };
  const Attention a{.query = rows(), .key = rows(), .value = rows(), .out = rows(),
                    .log_sum = take({sequences_, heads, length_}, wide_), .heads = heads};
  const TensorView dout = rows(), dquery = rows(), dkey = rows(), dvalue = rows();
  const double pairs = static_cast<double>(length_) * static_cast<double>(length_ + 1) / 2;
  const double flops = 4 * pairs * static_cast<double>(width_ * sequences_), bytes = static_cast<double>(4 * dout.bytes());
  kernels_.push_back({"attention", attentions_, flops, bytes, [=, this] { backend_->attention(a); }});
  kernels_.push_back({"attention, backward", attentions_, 2 * flops, 2 * bytes,
                      [=, this] { backend_->attention_backward(a, dout, dquery, dkey, dvalue); }});
}

void KernelBench::add_rows() {
  const TensorView wide_rows = values({tokens_, hidden_}), dwide = values({tokens_, hidden_});
  const auto by_sequence = [this](TensorView rows) {
    rows.stride = {rows.row_stride() * length_, rows.row_stride(), 1, 0};
    rows.shape = {sequences_, length_, rows.shape[1]};
    return rows;
  };
  const TensorView u = wide_rows.column_range(0, half_), v = wide_rows.column_range(half_, half_);
  const TensorView normed = values({tokens_, half_}), out = values({tokens_, half_});
  const TensorView z = values({tokens_, half_}), dz = values({tokens_, half_});
  const TensorView weight = values({half_}), bias = values({half_}), positions = values({1, length_});
  const TensorView mean = take({tokens_, 1}, wide_), inverse = take({tokens_, 1}, wide_);
  const TensorView dweight = take({half_}, wide_), dbias = take({half_}, wide_), dpositions = take({1, length_}, wide_);
  const TensorView sums = take({hidden_}, wide_), narrow = values({tokens_, width_}), x = values({tokens_, width_});
  const TensorView narrow_weight = values({width_}), dnarrow = take({width_}, wide_);
  const Normalisation norm{.x = x, .weight = narrow_weight, .bias = narrow_weight, .mean = mean, .inverse_deviation = inverse};
  Normalisation gate_norm{.x = v, .weight = weight, .bias = bias, .mean = mean, .inverse_deviation = inverse};
  gate_norm.activation = Activation::gelu_tanh;
  const double halves = static_cast<double>(tokens_ * half_), rows = static_cast<double>(tokens_ * width_);
  memory("norm", blocks_ + attentions_ + 1, 2 * rows, [=, this] {
    backend_->layer_norm(norm, narrow);
  });
  memory("norm, backward", blocks_ + attentions_ + 1, 4 * rows, [=, this] {
    backend_->layer_norm_backward(norm, narrow, x, narrow, dnarrow, dnarrow);
  });
  memory("gate norm", gates_, 2 * halves, [=, this] { backend_->layer_norm(gate_norm, normed); });
  memory("gate norm, backward", gates_, 3 * halves, [=, this] {
    backend_->layer_norm_backward(gate_norm, normed, {}, dwide.column_range(half_, half_), dweight, dbias);
  });
  const Gating gating{by_sequence(u), by_sequence(z), positions, by_sequence(out), Activation::gelu_tanh};
  memory("gate", gates_, 3 * halves, [=, this] { backend_->gate(gating); });
  memory("gate, backward", gates_, 5 * halves, [=, this] {
    backend_->gate_backward(gating, by_sequence(out), by_sequence(dwide.column_range(0, half_)), by_sequence(dz), dpositions);
  });
  memory("gelu, backward", 0, 6 * halves, [=, this] {
    backend_->activate_backward(Activation::gelu_tanh, wide_rows, dwide, dwide);  // to compare
  });
  memory("sum of rows, hidden", 0, 2 * halves, [=, this] { backend_->sum_rows(dwide, sums); });  // to compare
  const TensorView index = take({tokens_}, DType::i32, 1);
  memory("gather", 1, 2 * rows, [=, this] { backend_->gather_rows(x, index, 2, {}, narrow); });
  const TensorView place = take({StreamPlace::size}, DType::i64);
  const std::array<std::int64_t, StreamPlace::size> beginning{};
  backend_->upload(beginning.data(), place);
  memory("dropout", job_.model.dropout > 0 ? blocks_ : 0, 3 * rows,
         [=, this] { backend_->dropout(x, 0.1, 1, place, x, narrow); });
}

void KernelBench::add_update() {
  const Size mixing = attends_ ? 4 * width_ * width_ : length_ * length_;
  const auto per_block = static_cast<double>(hidden_ * width_ + inner_ * width_ + mixing);
  const auto parameters = static_cast<Size>(blocks_ * per_block) + vocabulary_ * width_;
  const TensorView value = values({parameters}), master = type_ == wide_ ? TensorView{} : take({parameters}, wide_);
  const TensorView grad = take({parameters}, wide_), m = take({parameters}, wide_), v = take({parameters}, wide_);
  const TensorView control = take({StepControl::size}, DType::f64, 1e-3), norm = take({1}, DType::f64);
  const auto count = static_cast<double>(parameters);
  const auto unit = static_cast<double>(size_of(wide_)) / static_cast<double>(size_of(type_));
  memory("adamw", 1, count * (type_ == wide_ ? 7 : 7 * unit + 1), [=, this] {
    backend_->adamw({.weight_decay = 0.1, .clip_norm = 1}, value, master, grad, m, v, control);
  });
  memory("sum of squares", 1, count * unit, [=, this] { backend_->sum_of_squares(grad, norm); });
  memory("zero gradients", 1, count * unit, [=, this] { backend_->fill(grad, 0); });
}

// Of blocks with experts, whose tokens and channels are shared out among the ranks as the job has it; this rank stands for all.
void KernelBench::add_sparse() {
  adding_ = Blocks::sparse;
  const auto& m = job_.model;
  const Size ways = job_.cluster.expert_ranks, experts = m.experts / ways;
  const Size rows = (tokens_ * ways + m.experts - 1) / m.experts;
  if (m.kind != "gmlp-token-moe") add_experts(experts, rows);  // whose experts are gMLP blocks
  if (m.kind == "smlp") {
    const Groups groups{experts, sequences_ * ways, width_ / m.experts};
    add_spatial("groups: spatial", static_cast<double>(m.sparse_blocks), groups);
    add_squares(groups);
  }
  if (job_.routing.tokens == "balanced") add_assignment();
  if (job_.routing.tokens != "hash") add_router();
}

// Scores of all tokens for all experts, and their gradients: narrow products, bound by memory.
void KernelBench::add_router() {
  const double calls = static_cast<double>(job_.model.sparse_blocks);
  const TensorView x = values({tokens_, width_}), dx = values({tokens_, width_}), weight = values({job_.model.experts, width_});
  const TensorView scores = wide({tokens_, job_.model.experts}), dscores = values({tokens_, job_.model.experts});
  product("router: x · W^T", calls, {.a = x, .b = weight, .out = scores, .transpose_b = true});
  product("router: dW += ds^T · x", calls,
          {.a = dscores, .b = x, .out = wide({job_.model.experts, width_}), .transpose_a = true, .accumulate = true});
  product("router: dx = ds · W", calls, {.a = dscores, .b = weight, .out = dx});
}

// Of all experts at once, with as many rows each, as a balanced assignment gives them: with and without what follows.
void KernelBench::add_experts(Size experts, Size rows) {
  const Size all = experts * rows;
  const double calls = static_cast<double>(job_.model.sparse_blocks * job_.model.expert_layers);
  const TensorView x = values({all, width_}), dy = values({all, width_}), y = values({all, width_});
  const TensorView h = values({all, hidden_}), dh = values({all, hidden_}), pre = values({all, hidden_});
  const TensorView to_h = values({all, hidden_});
  const TensorView in = values({experts, hidden_, width_}), in_bias = values({experts, hidden_});
  const TensorView out = values({experts, width_, hidden_}), out_bias = values({experts, width_});
  const TensorView din = wide({experts, hidden_, width_}), din_bias = wide({experts, hidden_});
  const TensorView dout = wide({experts, width_, hidden_}), dout_bias = wide({experts, width_});
  const Matmul forward_in{.a = x, .b = in, .out = to_h, .transpose_b = true};
  const Matmul forward_out{.a = h, .b = out, .out = y, .transpose_b = true};
  const Matmul input_of_out{.a = dy, .b = out, .out = to_h}, input_of_in{.a = dh, .b = in, .out = y};
  const Matmul weight_of_out{.a = dy, .b = h, .out = dout, .transpose_a = true, .accumulate = true};
  const Matmul weight_of_in{.a = dh, .b = x, .out = din, .transpose_a = true, .accumulate = true};
  const auto ending = [](Matmul m, TensorView Matmul::*with, const TensorView& what) {
    m.*with = what;
    return m;
  };
  const auto by_gelu = [&](Matmul m, bool backward) {
    m.activation = Activation::gelu_tanh;
    m.pre_activation = pre;
    m.activation_backward = backward;
    return m;
  };
  const struct {
    const char* name;
    double calls;
    Matmul m;
  } cases[] = {
      {"in: x · W^T", 0, forward_in},
      {"in: + bias, gelu", calls, by_gelu(ending(forward_in, &Matmul::bias, in_bias), false)},
      {"out: x · W^T", 0, forward_out},
      {"out: + bias", calls, ending(forward_out, &Matmul::bias, out_bias)},
      {"out: dx = dy · W", 0, input_of_out},
      {"out: dx = gelu' · (dy · W)", calls, by_gelu(input_of_out, true)},
      {"out: dW += dy^T · x", 0, weight_of_out},
      {"out: dW += dy^T · x, db += dy", calls, ending(weight_of_out, &Matmul::bias_gradient, dout_bias)},
      {"in: dx = dy · W", calls, input_of_in},
      {"in: dW += dy^T · x", 0, weight_of_in},
      {"in: dW += dy^T · x, db += dy", calls, ending(weight_of_in, &Matmul::bias_gradient, din_bias)},
  };
  const std::vector<Size> alike(static_cast<std::size_t>(experts), rows);
  for (const auto& one : cases) product(std::string("experts ") + one.name, one.calls, one.m, alike);
}

// What token mixing of narrow groups would take if channels lay together and no triangle were left out.
void KernelBench::add_squares(const Groups& groups) {
  const Size together = groups.sequences * groups.channels;
  const TensorView weight = values({groups.count * length_, length_}), in = values({groups.count, length_, together});
  const TensorView out = values({groups.count * length_, together});
  product("groups: whole squares alone", 0, {.a = weight, .b = in, .out = out},
          std::vector<Size>(static_cast<std::size_t>(groups.count), length_));
}

void KernelBench::add_assignment() {
  const Size experts = job_.model.experts, groups = std::max<Size>(1, sequences_ / job_.routing.group_sequences);
  const TensorView scores = arena_.take({tokens_, experts}, wide_);
  const RandomStream noise(1, "scores");
  std::vector<double> drawn(static_cast<std::size_t>(scores.size()));
  for (std::size_t i = 0; i < drawn.size(); ++i) drawn[i] = noise.normal(i);
  const std::vector<float> narrow(drawn.begin(), drawn.end());
  backend_->upload(wide_ == DType::f64 ? static_cast<const void*>(drawn.data()) : narrow.data(), scores);
  backend_->synchronize();
  const TensorView slots = arena_.take({experts, groups, (tokens_ / groups + experts - 1) / experts}, DType::i32);
  const TensorView rounds = arena_.take({groups}, DType::i32);
  kernels_.push_back({"assignment, balanced", static_cast<double>(job_.model.sparse_blocks), 0,
                      static_cast<double>(scores.bytes() + slots.bytes()),
                      [=, this] { backend_->assign_balanced(scores, groups, slots, rounds); }, adding_});
}

void KernelBench::measure(const BenchOptions& options, nlohmann::json& result) {
  const Size length = telling_vector(*backend_, type_, options.least_vector);
  const TensorView a = values({length}), b = values({length}), out = values({length});
  kernels_.push_back({"limit: add", 0, 0, static_cast<double>(3 * a.bytes()), [=, this] { backend_->add(a, b, out); }});
  const Size n = telling_product(*backend_, type_, options.least_product);
  adding_ = Blocks::dense;
  product(fmt::format("limit: {}³", n), 0, {.a = values({n, n}), .b = values({n, n}), .out = values({n, n})});
  time_in_turns(options.seconds);
  const Kernel &limit_product = kernels_.back(), &limit_add = kernels_[kernels_.size() - 2];
  report(limit_product.flops / limit_product.least, limit_add.bytes / limit_add.least, result);
}

void KernelBench::time_in_turns(double at_least) {
  const bool on_host = backend_->in_host_memory();
  const Stopwatch watch;
  for (int round = 0; round < 4 || watch.seconds() < at_least; ++round) {  // in turns: all see the same machine
    for (auto& kernel : kernels_) {
      const double seconds = backend_->timed([&] {
        for (int i = 0; i < kernel.repeats; ++i) kernel.run();
      }) / kernel.repeats;
      if (round > 1) {
        kernel.least = std::min(kernel.least, seconds);
      } else if (round == 1 && !on_host) {
        kernel.repeats = static_cast<int>(std::clamp(std::ceil(device_seconds / seconds), 1.0, most_repeats));
      }
    }
  }
}

void KernelBench::report(double product_limit, double memory_limit, nlohmann::json& result) const {
  struct Total {
    double seconds = 0, floor = 0, products = 0, useful = 0;
  } dense, sparse;
  for (const auto& kernel : kernels_) {
    nlohmann::json one = {{"name", kernel.name}, {"calls_per_step", kernel.calls}, {"seconds", kernel.least}};
    const double work = kernel.flops > 0 ? kernel.flops : kernel.bytes;
    one[kernel.flops > 0 ? "flops_per_second" : "bytes_per_second"] = work / kernel.least;
    const double floor = std::max(kernel.flops / product_limit, kernel.bytes / memory_limit);
    one["floor_seconds"] = floor;
    one["share"] = floor / kernel.least;
    one["seconds_per_step"] = kernel.calls * kernel.least;
    Total& total = kernel.of == Blocks::dense ? dense : sparse;
    total.seconds += kernel.calls * kernel.least;
    total.floor += kernel.calls * floor;
    total.products += kernel.flops > 0 ? kernel.calls * kernel.least : 0;
    total.useful += kernel.calls * kernel.flops;
    result["kernels"].push_back(std::move(one));
  }
  result["matmul_flops_per_second"] = product_limit;
  result["memory_bytes_per_second"] = memory_limit;
  result["step_seconds_dense"] = dense.seconds;
  result["floor_seconds_dense"] = dense.floor;
  result["product_seconds_dense"] = dense.products;
  result["share_dense"] = dense.useful / dense.seconds / product_limit;
  if (job_.model.sparse_blocks > 0) {  // of what blocks with experts have of their own
    result["step_seconds_experts"] = sparse.seconds;
    result["floor_seconds_experts"] = sparse.floor;
    result["product_seconds_experts"] = sparse.products;
  }
  if (!backend_->in_host_memory()) {
    result["product_ends"] = job_.cluster.product_ends;
    result["deterministic"] = job_.cluster.deterministic;
  }
  result["dtype"] = job_.train.precision;
  result["device"] = device_name(gpu_of(job_));
  if (const auto attention = backend_->attention_by(); !attention.empty()) result["attention"] = attention;
  result["isa"] = cpu_isa();
  result["threads"] = job_.cluster.threads;
}

}  // namespace

void bench_kernels(const BenchOptions& options, nlohmann::json& result) {
  KernelBench(options.job).measure(options, result);
}

}  // namespace smlp
