// The names under a run's checkpoints folder, and what they mean.
//   step-00000120                     published: checkpoint_name() of core/run_directory.h
//   step-00000120.attempt-0003.tmp    being written, or on its way out: swept at start
//   step-00000120.aside-1             moved aside; goes when the run has passed it
//   LATEST                            a hint for people and scripts
//   ATTEMPT                           the newest attempt that may publish
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/run_directory.h"

namespace smlp {

std::string temporary_name(std::int64_t step, int attempt);
std::string temporary_name(const std::string& of, int attempt);  // of another file: "LATEST.attempt-0003.tmp"
// In a node's own folder: checkpoint/local.h.
std::string local_name(std::int64_t step, int attempt);
std::string sidecar_name(int rank);
constexpr const char* latest_name = "LATEST";

std::optional<std::int64_t> step_of_aside(const std::string& name);
bool is_temporary(const std::string& name);
// The first free name to move `checkpoint` aside to.
std::filesystem::path free_aside_path(const std::filesystem::path& checkpoint);

}  // namespace smlp
