#include "core/control_folder.h"
#include "core/drill_plan.h"
#include "core/goodput.h"
#include "core/verdict.h"
#include "core/version.h"
#include "launcher/heartbeat_watch.h"
#include "launcher/preflight.h"
#include "launcher/run_history.h"
#include "launcher/run_results.h"
#include "launcher/run_status.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

namespace {

const RunDirectory& run() {
  static const RunDirectory one{folder() / "run"};
  return one;
}

// The files that users copy, edit and damage, and that crashes leave half written; in this order.
void run_directory(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  std::size_t i = 0;
  for (const auto& file : {run().job(), run().identity(), run().attempts(), run().events(), run().metrics(), run().ledger(),
                           run().launcher_lock(), run().heartbeat(0), run().limits(), run().checkpoints() / fence_name})
    put(file, part(parts, i++));
  to_json(read_status(run()));
  read_goodput(run());
  attempt_in_charge(run().checkpoints());
  const RunHistory history(run());
  history.last_attempt();
  history.last_to_choose();
  history.cause_of(1);
  history.count_events("restart");
  history.published_steps();
  in_sentences([] { to_json(read_results(run())); });
}

// A request, an answer, what the ranks said of their end, and a plan of faults.
void small_files(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  put(run().control() / "request-1.json", parts[0]);
  put(run().control() / "answer-1.json", part(parts, 1));
  put(run().verdict(1), part(parts, 2));
  put(run().root / "drill" / "plan.json", part(parts, 3));
  std::vector<std::string> refused;
  const ControlFolder control(run().control());
  for (const Request& request : control.requests(&refused)) describe(request);
  control.answer_to("1");
  read_verdict(run().verdict(1));
  DrillFolder(run()).plan();
}

void beat(std::string_view bytes) { parse_beat(std::string(bytes)); }

// What a node answers to the launcher.
void node_report(std::string_view bytes) {
  judge({{.node = "n1", .line = std::string(bytes), .failure = "", .received = 1}}, {}, {});
  judge_exchange(std::string(bytes), {});
}

}  // namespace

std::vector<Target> run_targets() {
  const std::string attempt =
      R"({"attempt":1,"ranks":2,"threads":1,"nodes":[],"host":"h","started":"2026-01-01T00:00:00Z",)"
      R"("ended":"2026-01-01T00:01:00Z","first_step":1,"last_step":9,"from_checkpoint":null,"exit_code":137,)"
      R"("cause":"signal","reason":"a rank was killed"})";
  const std::string step =
      R"({"step":9,"attempt":1,"time":1750000000.5,"loss":2.5,"tokens_per_second":100,"checkpoint_step":5,"highest_step":9,)"
      R"("goodput_seconds_total":{"productive":3.5,"restart":1}})";
  const std::string node =
      R"({"host":"n","version":")" + std::string(version()) +
      R"(","cores":8,"threads":16,"memory_bytes":64000000000,"devices":0,"isa":"avx512",)"
      R"("product_flops":1e11,"best_product_flops":1e11,"run_dir":{"path":"/r","free_bytes":50000000000,"sync_seconds":0.01,)"
      R"("writable":true,"failure":""},"local_dir":null,"clock_seconds":1000.0,"up_seconds":5000.0,)"
      R"("core_list":[[0,1],[2,3]]})";
  const std::string links = R"({"hosts":["a","b"],"pairs":[{"a":0,"b":1,"bytes_per_second":1e9}],"median":1e9})";
  const std::string beat_of_rank = "12 step 340 1 4711 node1 15.5 2 77 71 1 world:all_reduce:123 3:forward";
  return {{"run_directory", run_directory,
           {joined({"name = \"a\"\n", R"({"identity":"x","fingerprint":"y"})", attempt + "\n",
                    R"({"event":"restart","attempt":1})" "\n", step + "\n", step + "\n", "process 4711 on node1",
                    beat_of_rank, "{}", "1"})}},
          {"small_files", small_files,
           {joined({R"({"id":"1","kind":"stop_after","who":"eva","time":"now","step":4})",
                    R"({"id":"1","outcome":"done","step":4,"detail":"saved"})",
                    R"({"stop":false,"budgeted":true,"not_after":3,"reason":"a spike"})",
                    R"({"faults":[{"number":1,"kind":"kill","phase":"step","rank":0,"step":3,"fraction":0.5,)"
                    R"("seconds":0}]})"})}},
          {"beat", beat, {beat_of_rank, beat_of_rank + " gives_up"}},
          {"node_report", node_report, {node, links}}};
}

}  // namespace smlp::fuzz
