#include "worker/local_restore.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/names.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/json_text.h"
#include "worker/local_tier.h"
#include "worker/side_by_side.h"
#include "worker/texts.h"

namespace smlp {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* owner_name = "RUN";  // in the run's folder on a node: whose it is

std::string my_host() {
  std::string name = host_name();
  std::replace(name.begin(), name.end(), '/', '_');
  return name.empty() || name.starts_with('.') ? "node" + name : name;
}

LocalRecord record_of(const RunDirectory& run, Communicator& world) {
  return LocalRecord::parse(broadcast_text(world, world.rank() == 0 ? LocalRecord::of(run).text() : ""));
}

std::string name_of_save(SaveId save) { return "local " + local_name(save.step, save.attempt); }

}  // namespace

LocalStart::LocalStart(const std::string& local_dir, const RunDirectory& run, std::optional<std::int64_t> not_after,
                       Communicator& world, Rejected rejected)
    : world_(world),
      run_(run),
      local_dir_(local_dir),
      rejected_(std::move(rejected)),
      record_(record_of(run, world)),
      hosts_(all_texts(world, my_host())),
      folder_(local_dir_ / record_.name() / hosts_[static_cast<std::size_t>(world.rank())]),
      partners_(partners_of(world.rank(), hosts_)),
      listing_(list_local(folder_)) {
  const auto holdings = ask_around();
  if (world_.rank() != 0) return;
  for (auto& candidate : candidates_of(holdings)) {
    const auto pass_over = [&](const std::string& why) { give_up(candidate, why); };
    if (!record_.counts(candidate.save)) {
      pass_over("a later attempt went on from an earlier step: it is not the run's");
    } else if (not_after && candidate.save.step > *not_after) {
      pass_over(fmt::format("it is newer than step {}, and what came after that step is given up", *not_after));
    } else {
      candidates_.push_back(std::move(candidate));
    }
  }
}

std::vector<Holding> LocalStart::ask_around() {
  json mine = {{"shards", json::array()}, {"faults", listing_.faults}};
  for (const auto& shard : listing_.shards) {
    mine["shards"].push_back({shard.save.step, shard.save.attempt, shard.rank, shard.ranks, shard.copy ? 1 : 0});
  }
  std::vector<Holding> holdings;
  std::vector<std::string> told;  // ranks of one node find the same faults
  const auto texts = gather_texts(world_, json_text(mine));
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const auto theirs = json::parse(texts[rank]);
    for (const auto& entry : theirs.at("shards")) {
      holdings.push_back({.holder = static_cast<int>(rank),
                          .save = {entry[0], entry[1]},
                          .rank = entry[2],
                          .ranks = entry[3],
                          .copy = entry[4] == 1});
    }
    for (const std::string fault : theirs.at("faults")) {
      if (std::ranges::find(told, fault) != told.end()) continue;
      told.push_back(fault);
      rejected_(fmt::format("a local shard on {}", hosts_[rank]), fault);
    }
  }
  return holdings;
}

void LocalStart::give_up(const LocalCandidate& candidate, const std::string& reason) {
  rejected_(name_of_save(candidate.save), reason);
}

std::optional<std::int64_t> LocalStart::newest() {
  while (!candidates_.empty()) {
    const auto fault = candidates_.front().fault();
    if (fault.empty()) return candidates_.front().save.step;
    give_up(candidates_.front(), fault);
    candidates_.erase(candidates_.begin());
  }
  return std::nullopt;
}

// The readers of the newest candidate, or nothing when a shard of it has none left.
std::optional<std::vector<Reader>> LocalStart::agree_on_readers() {
  json plan = json::object();
  if (world_.rank() == 0 && candidates_.front().fault().empty()) {
    const auto& candidate = candidates_.front();
    plan = {{"step", candidate.save.step}, {"attempt", candidate.save.attempt}, {"readers", json::array()}};
    for (const auto& reader : candidate.readers()) plan["readers"].push_back({reader.holder, reader.copy ? 1 : 0});
  }
  plan = json::parse(broadcast_text(world_, json_text(plan)));
  if (plan.empty()) return std::nullopt;
  std::vector<Reader> readers;
  for (const auto& entry : plan["readers"]) readers.push_back({entry[0], entry[1] == 1});
  if (world_.rank() != 0) candidates_.assign(1, {});
  candidates_.front().save = {plan["step"], plan["attempt"]};
  return readers;
}

// What I found about the shards that I am to read: a complaint or the sidecar of each.
std::string LocalStart::verify_mine(const std::vector<Reader>& readers, const std::function<void()>& between) const {
  auto report = json::array();
  for (std::size_t rank = 0; rank < readers.size(); ++rank) {
    if (readers[rank].holder != world_.rank()) continue;
    const auto found = std::ranges::find_if(listing_.shards, [&](const LocalShard& shard) {
      return shard.save == candidates_.front().save && shard.rank == static_cast<int>(rank) &&
             shard.copy == readers[rank].copy;
    });
    const auto complaint = found == listing_.shards.end() ? std::string("it is gone") : verify_local(*found, between);
    report.push_back({{"rank", rank}, {"complaint", complaint}});
    if (complaint.empty()) report.back()["sidecar"] = found->sidecar;
  }
  return json_text(report);
}

// Rank 0: false when a shard must be read elsewhere, or the shards don't fit together.
bool LocalStart::hear_reports(const std::vector<std::string>& reports, const std::vector<Reader>& readers,
                              std::vector<std::string>& sidecars) {
  auto& candidate = candidates_.front();
  bool sound = true;
  sidecars.assign(readers.size(), "");
  for (const auto& text : reports) {
    for (const auto& entry : json::parse(text)) {
      const std::size_t rank = entry.at("rank");
      const std::string complaint = entry.at("complaint");
      if (complaint.empty()) {
        sidecars[rank] = entry.at("sidecar");
        continue;
      }
      sound = false;
      const auto& host = hosts_[static_cast<std::size_t>(readers[rank].holder)];
      give_up(candidate, fmt::format("{} of rank {} on {}: {}", readers[rank].copy ? "the partner's copy" : "the shard",
                                     rank, host, complaint));
      candidate.forget(static_cast<int>(rank), readers[rank]);
    }
  }
  return sound;
}

StoredSave LocalStart::save_of(SaveId id, const std::vector<Reader>& readers, std::vector<Sidecar> parts) const {
  StoredSave save{.name = fmt::format("the local save of step {}", id.step),
                  .manifest = manifest_of(std::move(parts)),
                  .sources = {}};
  for (const auto& reader : readers) {
    const auto shard = static_cast<int>(save.sources.size());
    save.sources.push_back({reader.holder, local_files(folder_, id, shard, reader.copy).shard});
  }
  return save;
}

std::optional<LocalSource> LocalStart::take_newest(const std::function<void()>& between) {
  const bool root = world_.rank() == 0;
  while (const auto readers = agree_on_readers()) {
    std::vector<std::string> sidecars;
    SideBySide ranks(world_, between);
    const auto mine = verify_mine(*readers, [&] { ranks.between(); });
    ranks.finish();
    const auto reports = gather_texts(world_, mine);
    const bool sound = root && hear_reports(reports, *readers, sidecars);
    const auto agreed = json::parse(broadcast_text(world_, sound ? json_text(json(sidecars)) : "[]"));
    if (agreed.empty()) continue;
    std::string fault;
    try {
      std::vector<Sidecar> parts;
      for (const std::string text : agreed) parts.push_back(parse_sidecar(text));
      LocalSource source{candidates_.front().save, save_of(candidates_.front().save, *readers, std::move(parts))};
      fault = coverage_fault(source.save.manifest.tensors, source.save.manifest.shards);
      if (fault.empty()) return source;
    } catch (const Error& error) {
      fault = error.what();
    }
    if (root) give_up(candidates_.front(), fault);
    candidates_.erase(candidates_.begin());
    return std::nullopt;
  }
  if (root) newest();  // says what is missing, and drops it
  return std::nullopt;
}

std::optional<double> LocalStart::saved_at(SaveId save) const {
  const auto found = std::ranges::find(listing_.shards, save, &LocalShard::save);
  return found == listing_.shards.end() ? std::nullopt : written_at(found->file);
}

bool LocalStart::begin(int attempt, std::int64_t step) {
  std::string trouble, kept;
  if (world_.rank() == 0) {
    const bool known = kind_of_path(run_.local_tier()) != PathKind::absent;
    record_.began(attempt, step);
    try {
      write_durably(run_.local_tier(), record_.text());
    } catch (const std::exception& error) {
      if (known) throw;  // with the record as it is, later saves that were given up would count again
      trouble = error.what();
    }
    auto list = json::array();
    for (const auto& candidate : candidates_) {
      if (list.size() < LocalTier::kept && candidate.save.step <= step && candidate.fault().empty()) {
        list.push_back({candidate.save.step, candidate.save.attempt});
      }
    }
    kept = json_text(list);
  }
  trouble = broadcast_text(world_, trouble);
  const auto list = json::parse(broadcast_text(world_, kept));
  if (!trouble.empty()) {
    spdlog::warn("no local saves in this attempt: {}", trouble);
    return false;
  }
  std::vector<SaveId> keep;
  for (const auto& entry : list) keep.push_back({entry[0], entry[1]});
  keep_local(folder_, keep);
  sweep_foreign();
  try {
    make_folder(folder_);
    fs::permissions(local_dir_ / record_.name(), fs::perms::owner_all);
    write_atomically(local_dir_ / record_.name() / owner_name, record_.run() + "\n");
  } catch (const std::exception& error) {
    spdlog::warn("{}; local saves will fail on this node until that is mended", error.what());
  }
  return true;
}

// What this very run directory left under other names: a run that was there before.
void LocalStart::sweep_foreign() const {
  for (const auto& path : entries_of(local_dir_)) {
    if (path.filename() == record_.name() || !path.filename().string().starts_with("smlp-")) continue;
    if (read_if_there(path / owner_name) != record_.run() + "\n") continue;
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
}

}  // namespace smlp
