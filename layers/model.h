// The language model of one job: embedding, a stack of blocks, final norm, tied output projection with the
// loss. Built from a ModelConfig by make_model(); owned by the Engine; parameters live in the store.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "layers/layer.h"
#include "params/parameter_store.h"
#include "routing/make_router.h"

namespace smlp {

struct ModelConfig {          // model.md; [model] and [routing] of the job file, resolved
  std::string kind = "smlp";  // "transformer", "gshard", … (core/model_check.cpp)
  std::int64_t context = 0, width = 0, hidden = 0, dense_blocks = 0, sparse_blocks = 0, experts = 1,
               heads = 1;
  std::int64_t vocabulary = 0;
  double dropout = 0;
  Activation activation = Activation::gelu_tanh;
  std::string placement = "paper";  // "paper", "fairseq"
  std::string channels = "deterministic";  // "partial", "leaky"
  bool allow_leak = false;                 // "leaky" is refused without it
  RouterSettings router;                   // of blocks that leave a choice
  std::int64_t group_sequences = 1;
  std::int64_t expert_layers = 1;  // residual blocks that an expert with a norm of its own is a chain of
  bool shuffle = false;  // tokens are mixed among ranks before they are assigned in training
  std::vector<std::string> stack;  // kind of each block; empty: by kind and placement
};

// What a layer is told of how the job is spread: whom to exchange tokens with.
struct ExpertGroup {
  Communicator& ranks;  // together they hold all experts, in rank order
};

class Model {
 public:
  virtual ~Model() = default;
  // Forward over c.tokens, and the loss of c.targets: row_loss, f64 [B · T], is written. In training mode also the loss's
  // gradient with respect to the last hidden state (chunk by chunk: all [tokens, vocabulary] logits are never held at once).
  virtual void forward_loss(Context& c, TensorView row_loss) = 0;
  // After a training forward_loss(). block_done(k) is called when every gradient of stack entry k is final
  // (k counts down; k = blocks is the head with the final norm, -1 the embedding), to start its reduction.
  virtual void backward(Context& c, const std::function<void(int)>& block_done) = 0;
  // Evaluation: logits of the given rows (i32 indices into the B · T rows; -1 gives zeros), out [n,
  // vocabulary].
  virtual void forward_logits(Context& c, TensorView rows, TensorView logits) = 0;
  virtual int blocks() const = 0;
  // How many of a sequence's tokens the loss counts: all, or with partial prediction those after the prefix.
  virtual std::int64_t predicted(std::int64_t length) const = 0;
  // Whether no logit depends on later tokens, or on whether there are any, in evaluation.
  virtual bool causal() const = 0;
};

std::unique_ptr<Model> make_model(const ModelConfig& config, ParameterStore& store, ExpertGroup experts);

// Places of the sparse blocks in the stack, counted from 0, by the paper's or fairseq's rule (model.md §2).
std::vector<bool> sparse_places(std::int64_t dense, std::int64_t sparse, const std::string& rule);
// Kind of each block, from the first to the last.
std::vector<std::string> stack_of(const ModelConfig& config);
// Of a model, and of one kind of block.
bool has_experts(const ModelConfig& config);
bool has_experts(const std::string& block);
// As the job says, but for blocks that know one way alone.
RouterSettings router_of(const ModelConfig& config, const std::string& block);
bool has_auxiliary_loss(const ModelConfig& config);   // a router adds to the loss
bool drops_in_evaluation(const ModelConfig& config);  // for want of places, which tokens of a sequence compete for
bool has_attention(const ModelConfig& config);
bool has_attention(const std::string& block);
bool has_spatial_gate(const std::string& block);

}  // namespace smlp
