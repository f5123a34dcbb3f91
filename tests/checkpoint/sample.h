// A small model spread over any number of ranks of one process: replicated tensors, expert slices with
// replicas, and flat ranges of elements whose ends fall anywhere; every value a function of (tensor, element,
// step).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "tests/scratch.h"

namespace smlp::test {

enum class Spread { replicated, experts, flat };

struct SampleTensor {
  std::string name;
  Shape shape;
  DType dtype;
  Spread spread;
};

const std::vector<SampleTensor>& sample_tensors();
const std::vector<SampleTensor>& few_tensors();  // where a test saves hundreds of times
std::vector<std::byte> sample_bytes(const SampleTensor& tensor, std::int64_t step);
RunState sample_state(std::int64_t step);

// The memory of one rank, on a backend whose addresses fault on the host.
class SampleRank {
 public:
  SampleRank(int rank, int ranks, const std::vector<SampleTensor>& tensors = sample_tensors());
  ~SampleRank();
  SampleRank(const SampleRank&) = delete;
  SampleRank& operator=(const SampleRank&) = delete;

  Backend& backend() { return *backend_; }
  std::vector<Piece>& pieces() { return pieces_; }
  void fill(std::int64_t step);  // values of that step
  void wipe();                   // 0xEE everywhere
  std::vector<std::string> wrong(
      std::int64_t step);  // names of the pieces whose bytes are not those of `step`

 private:
  std::unique_ptr<Backend> backend_;
  std::vector<SampleTensor> tensors_;
  std::vector<Piece> pieces_;
};

struct SaveResult {
  bool published = false;
  std::string failure;
};
// All ranks' part of a save, one after the other in this process.
SaveResult save(const WriterOptions& options, std::int64_t step,
                const std::vector<SampleTensor>& tensors = sample_tensors());
// All that a rank holds, by itself: ranks of a job share the reading (worker/load_together.h).
void load_alone(const std::filesystem::path& checkpoint, SampleRank& memory, bool weights_only = false);
// Loads on `ranks` ranks; "" when every byte is that of `step`.
std::string load_fault(const std::filesystem::path& checkpoint, int ranks, std::int64_t step,
                       const std::vector<SampleTensor>& tensors = sample_tensors());

WriterOptions options_for(const std::filesystem::path& root, int ranks, int attempt = 1);
std::filesystem::path step_path(const std::filesystem::path& root, std::int64_t step);
std::vector<std::string> names_in(const std::filesystem::path& folder);
void flip_bit(const std::filesystem::path& file, std::int64_t bit);

}  // namespace smlp::test
