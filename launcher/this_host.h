// Ranks on this host, by mpirun; in a build without MPI one rank, started as it is.
#pragma once

#include "launcher/cluster.h"
#include "launcher/mpi_launch.h"

namespace smlp {

class ThisHost final : public Cluster {
 public:
  explicit ThisHost(const JobConfig& job);
  Choice choose() override;
  ProcessStart start(const Layout& layout, const std::vector<std::string>& program) override;
  void attempt_over() override { session_.reset(); }
  std::string end_elsewhere(double) override { return ""; }
  Handover hand_over(Leaving, std::int64_t) override { return {}; }

 private:
  Layout layout_;
  CoreCount cores_;
  std::optional<SessionFolder> session_;  // of an attempt
};

}  // namespace smlp
