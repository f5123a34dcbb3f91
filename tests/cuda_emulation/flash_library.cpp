#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/flash_library.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/numbers.cuh"

namespace smlp {

namespace emulation {
FlashRules& flash_rules() {
  static FlashRules rules;
  return rules;
}
FlashCounts& flash_counts() {
  static FlashCounts counts;
  return counts;
}
}  // namespace emulation

namespace cuda {

namespace {

using Rows = std::vector<double>;  // [length, width] of one head

class PlainPlan final : public FlashPlan {
 public:
  PlainPlan(cudaStream_t stream, const FlashCall& call)
      : stream_(stream), planned_(call), bytes_(emulation::flash_rules().workspace(call)) {}

  std::int64_t workspace_bytes() const override { return bytes_; }

  void run(const FlashCall& call, void* workspace) override {
    expect_planned(call);
    if (bytes_ > 0) expect(reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0, "the workspace is not aligned");
    if (emulation::flash_rules().fails_recorded && is_recorded(stream_))
      throw Error(ExitCode::unavailable, "the emulated library can't be recorded");
    const bool fails = emulation::flash_rules().runs_before_failure == runs_++;
    emulation::hand_over(stream_, [this, call, workspace, fails] {
      if (bytes_ > 0) std::memset(workspace, 0xFF, static_cast<std::size_t>(bytes_));
      for (std::int64_t b = 0; b < call.sequences; ++b) {
        for (std::int64_t h = 0; h < call.heads; ++h) head(call, b, h, fails);
      }
    });
    if (fails) throw Error(ExitCode::unavailable, "the emulated library failed");
    ++(call.backward() ? emulation::flash_counts().backward : emulation::flash_counts().forward);
  }

 private:
  void expect_planned(const FlashCall& call) const {
    bool same = call.type == planned_.type && call.sequences == planned_.sequences && call.heads == planned_.heads &&
                call.length == planned_.length && call.width == planned_.width && call.scale == planned_.scale &&
                call.backward() == planned_.backward() && call.deterministic == planned_.deterministic;
    for (const auto tensor : FlashCall::tensors) {
      const HeadTensor &t = call.*tensor, &planned = planned_.*tensor;
      same = same && t.sequence == planned.sequence && t.head == planned.head && t.token == planned.token;
    }
    if (!same) std::abort();  // an exception would be taken for a refusal
  }

  static Numbers numbers(const FlashCall& call, const HeadTensor& t, std::int64_t b, std::int64_t h) {
    return {static_cast<char*>(t.data) + (b * t.sequence + h * t.head) * size_of(call.type), call.type};
  }
  static Rows read(const FlashCall& call, const HeadTensor& t, std::int64_t b, std::int64_t h) {
    Rows rows;
    for (std::int64_t i = 0; i < call.length; ++i) {
      for (std::int64_t c = 0; c < call.width; ++c) rows.push_back(number_at(numbers(call, t, b, h), i * t.token + c));
    }
    return rows;
  }
  static void write(const FlashCall& call, const HeadTensor& t, std::int64_t b, std::int64_t h, const Rows& rows,
                    bool fails) {
    for (std::int64_t i = 0; i < call.length; ++i) {
      for (std::int64_t c = 0; c < call.width; ++c) {
        put_number(numbers(call, t, b, h), i * t.token + c,
                   fails ? NAN : rows[static_cast<std::size_t>(i * call.width + c)]);
      }
    }
  }

  void head(const FlashCall& call, std::int64_t b, std::int64_t h, bool fails) const {
    const auto width = static_cast<std::size_t>(call.width), length = static_cast<std::size_t>(call.length);
    const Rows q = read(call, call.query, b, h), k = read(call, call.key, b, h), v = read(call, call.value, b, h);
    float* log_sum = call.log_sum + (b * call.heads + h) * call.length;
    const auto dot = [width](const Rows& x, std::size_t i, const Rows& y, std::size_t j) {
      double sum = 0;
      for (std::size_t c = 0; c < width; ++c) sum += x[i * width + c] * y[j * width + c];
      return sum;
    };
    const auto add = [width](Rows& to, std::size_t i, double factor, const Rows& x, std::size_t j) {
      for (std::size_t c = 0; c < width; ++c) to[i * width + c] += factor * x[j * width + c];
    };
    const double scale = static_cast<double>(call.scale);
    if (!call.backward()) {
      Rows out(q.size(), 0);
      for (std::size_t i = 0; i < length; ++i) {
        std::vector<double> scores;
        double most = -INFINITY, sum = 0;
        for (std::size_t j = 0; j <= i; ++j) most = std::max(most, scores.emplace_back(scale * dot(q, i, k, j)));
        for (std::size_t j = 0; j <= i; ++j) sum += std::exp(scores[j] - most);
        log_sum[i] = static_cast<float>(most + std::log(sum));
        for (std::size_t j = 0; j <= i; ++j) add(out, i, std::exp(scores[j] - most) / sum, v, j);
      }
      return write(call, call.out, b, h, out, fails);
    }
    const Rows out = read(call, call.out, b, h), dout = read(call, call.dout, b, h);
    Rows dq(q.size(), 0), dk(q.size(), 0), dv(q.size(), 0);
    for (std::size_t i = 0; i < length; ++i) {
      const double mean = dot(dout, i, out, i);
      for (std::size_t j = 0; j <= i; ++j) {
        const double chance = std::exp(scale * dot(q, i, k, j) - static_cast<double>(log_sum[i]));
        const double slope = scale * chance * (dot(dout, i, v, j) - mean);
        add(dv, j, chance, dout, i);
        add(dq, i, slope, k, j);
        add(dk, j, slope, q, i);
      }
    }
    write(call, call.dquery, b, h, dq, fails);
    write(call, call.dkey, b, h, dk, fails);
    write(call, call.dvalue, b, h, dv, fails);
  }

  cudaStream_t stream_;
  FlashCall planned_;
  std::int64_t bytes_;
  int runs_ = 0;
};

class PlainLibrary final : public FlashLibrary {
 public:
  explicit PlainLibrary(cudaStream_t stream) : stream_(stream) {}
  std::string name() const override { return "the emulated library"; }
  std::unique_ptr<FlashPlan> plan(const FlashCall& call) override {
    ++emulation::flash_counts().plans;
    const auto& rules = emulation::flash_rules();
    const std::string old = too_old_for(rules.version, call), why = old.empty() ? rules.declines(call) : old;
    if (!why.empty()) throw Error(ExitCode::unavailable, why);
    return std::make_unique<PlainPlan>(stream_, call);
  }

 private:
  cudaStream_t stream_;
};

}  // namespace

std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t stream) {
  ++emulation::flash_counts().asked;
  const std::string& absent = emulation::flash_rules().absent;
  if (!absent.empty()) throw Error(ExitCode::unavailable, absent);
  return std::make_unique<PlainLibrary>(stream);
}

}  // namespace cuda
}  // namespace smlp
