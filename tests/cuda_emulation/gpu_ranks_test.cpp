// Ranks on emulated GPUs take the communicator that fits where they sit.
#include "worker/gpu_ranks.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include "comm/nccl/nccl_communicator.h"
#include "core/error.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"
#include "tests/cuda_emulation/emulator.h"
#include "worker/device.h"

namespace smlp::test {
namespace {

class GpuRanks : public testing::Test {
 protected:
  ~GpuRanks() override {
    emulation::set_devices(1);
    emulation::set_driver_error(cudaSuccess);
  }
  std::string kind_of(const Communicator& comm) {
    return dynamic_cast<const NcclCommunicator*>(&comm) != nullptr ? "nccl" : "another";
  }
  std::unique_ptr<Communicator> join(Backend& backend, const std::string& wanted) {
    return join_gpus(world().split(0, world().rank()), backend, wanted, true);
  }
};

TEST_F(GpuRanks, OfAJobOnTheCpuDoNotAskADriverThatMayBeIll) {
  emulation::set_driver_error(cudaErrorSystemNotReady);
  JobConfig job;
  job.cluster.device = "cpu";
  EXPECT_EQ(gpu_of(job), std::nullopt);
  job.cluster.device = "auto";
  EXPECT_THROW(gpu_of(job), Error);
}

TEST_F(GpuRanks, WithOneEachTalkByNccl) {
  emulation::set_devices(world().size());
  const auto backend = make_cuda_backend({.device = world().rank()});
  for (const char* wanted : {"auto", "nccl"}) EXPECT_EQ(kind_of(*join(*backend, wanted)), "nccl");
  EXPECT_EQ(kind_of(*join(*backend, "staged")), "another");
}

TEST_F(GpuRanks, ThatShareOneTalkThroughTheHostOrNotAtAll) {
  if (world().size() == 1) GTEST_SKIP() << "nobody to share with";
  const auto backend = make_cuda_backend();
  EXPECT_EQ(kind_of(*join(*backend, "auto")), "another");
  EXPECT_THROW(join(*backend, "nccl"), Error);
}

TEST_F(GpuRanks, TalkThroughTheHostWithOneOnTheCpu) {
  if (world().size() == 1) GTEST_SKIP() << "nobody beside it";
  emulation::set_devices(world().size());
  const auto backend = world().rank() == 1 ? make_cpu_backend() : make_cuda_backend({.device = world().rank()});
  const auto comm = join(*backend, "auto");
  EXPECT_EQ(kind_of(*comm), "another");
  Memory memory(backend.get());
  const auto view = memory.view(std::vector<float>{1}, {1}, DType::f32);
  comm->all_reduce(view, Reduce::sum);
  EXPECT_EQ(memory.read<float>(view), std::vector<float>{static_cast<float>(world().size())});
}

}  // namespace
}  // namespace smlp::test
