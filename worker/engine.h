// The model with everything that computes on it: backend, groups, parameters, optimiser, scratch memory. Knows
// how to take one training step and how to evaluate; knows nothing of files, clocks of the run, or restarts.
// Owned by the Trainer, by a benchmark, or by a command.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "comm/communicator.h"
#include "core/job_config.h"
#include "eval/perplexity.h"
#include "layers/model.h"
#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "optim/loss_scale.h"
#include "params/parameter_store.h"
#include "tensor/phase_clock.h"
#include "worker/batch_upload.h"
#include "worker/device.h"
#include "worker/not_finite.h"

namespace smlp {

ModelConfig model_config(const JobConfig& job);
DType value_type(const JobConfig& job);  // of train.precision
std::int64_t micro_batches_of_step(const JobConfig& job, std::int64_t ranks);  // that each of so many ranks takes

struct BlockLoad {
  std::int64_t block = 0;
  std::vector<double> expert_tokens;  // of all ranks, this step
  double dropped = 0, rounds = 0;     // rounds: the most any group of this rank needed; negative: the cap was met
  Table* bias = nullptr;              // what these loads move once the step is done; most have none
};

// Means over the tokens of the global batch; of layers that have none, all zero.
struct RouterLosses {
  double added = 0;           // to the loss: weighted, as T(b) of routing/auxiliary_loss.h makes it
  double balance = 0, z = 0;  // summed over layers, whatever their weight
};

struct StepResult {
  double loss = 0;  // cross entropy: mean over the predicted tokens of the global batch
  RouterLosses router_losses;
  double gradient_norm = 0, learning_rate = 0;
  double loss_scale = 1;     // of this step
  bool overflowed = false;   // the gradient is not finite, and may be with the smaller scale of the next step
  bool updated = true;  // false: every rank left its weights alone
  OwnFinite own_finite;
  std::span<const BlockLoad> blocks;  // the engine's, until its next step
  PhaseSeconds phases;  // on a device: up to where the gradient's norm was known; the update is in the next step's
};

// Tokens and targets (host) of sequences [position, position + count) of the run; the next call will be for `next`.
using ReadBatch = std::function<void(std::int64_t position, std::int64_t count, std::int64_t next,
                                     const std::int32_t*& tokens, const std::int32_t*& targets)>;

// Of a step whose loss, flags and norm all ranks know: may its gradient change the weights? The same answer everywhere;
// one that is not finite never does.
using MayUpdate = std::function<bool(const StepResult&)>;

class Engine {
 public:
  // Collective. `trainable`: with gradients, optimiser state and first values; otherwise weights alone, undefined.
  Engine(const JobConfig& job, std::unique_ptr<Backend> backend, ProcessGrid grid, bool trainable);
  ~Engine();

  // One step from sequence `position`; `flags` are summed over all ranks in the step's one small all-reduce.
  // `between` is called after every micro-batch.
  StepResult train_step(std::int64_t step, std::int64_t position, const ReadBatch& read, std::span<double> flags,
                        const std::function<void()>& between, const MayUpdate& may_update = {});
  void watch_gradients(bool on) { sync_->watch_own(on); }  // of this rank alone, in the step that comes
  Evaluation evaluate(const TokenFile& file, std::int64_t windows, const std::function<void()>& between,
                      bool compare_routing = false);

  // Parameters, and with the optimiser its state, as this layout holds them.
  std::vector<Piece> pieces(bool with_optimizer) const;
  // After a checkpoint was read into pieces(): masters that did not come with it start as the values are.
  void weights_loaded(bool with_masters);

  Backend& backend() { return *backend_; }
  Arena& arena() { return *arena_; }
  Model& model() { return *model_; }
  ProcessGrid& grid() { return grid_; }
  ParameterStore& store() { return *store_; }
  // Where the model is, from any thread: k in block k forward, ~k backward.
  int at_block() const noexcept { return at_block_.load(std::memory_order_relaxed); }
  LossScale& loss_scale() { return loss_scale_; }
  const Recording& recording() const { return recording_; }  // of forward and backward passes
  std::int64_t updates() const;
  void set_updates(std::int64_t updates);

 private:
  struct Buffers;  // small views that live as long as the engine
  struct MicroBatch {
    std::int64_t step, position;  // of the step: its number and first sequence
    std::int64_t first, next;     // sequences of the step: this rank's first here, and where it will read next
    // False where ranks do not divide the global batch: in the last round some only keep their peers company in the
    // exchange, with sequences of the next step.
    bool counts;
    std::int64_t index;  // in the step
    bool last;
  };

  double share_of_a_prediction() const;  // in the step's loss
  double share_of_a_token() const;       // in the routers' losses
  void scale_losses(double factor);      // what gradients are of, from now on
  std::int64_t first_sequence(std::int64_t micro_batch) const;  // of this rank's, in the step
  void micro_batch(const MicroBatch& part, const ReadBatch& read);
  void update(StepResult& result, std::span<double> flags, const MayUpdate& may_update);
  void agree(StepResult& result, std::span<double> flags);
  void repeat(const Context& c, const TensorView& row_loss, std::span<const WorkPart> passes);
  void clear_loads();
  void add_reports(bool count);
  void add_tally(StepResult& result);

  JobConfig job_;
  ModelConfig config_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientSync> sync_;
  std::unique_ptr<Buffers> buffers_;
  std::unique_ptr<BatchUpload> upload_;
  LossScale loss_scale_;
  std::vector<BlockLoad> loads_;   // of the step; the memory is kept
  std::atomic<int> at_block_ = 0;
  Recording recording_;
  bool auxiliary_ = false;   // do routers add to the loss?
  bool repeatable_ = false;  // does a micro-batch make the same calls as the one before?
};

}  // namespace smlp
