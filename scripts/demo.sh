#!/usr/bin/env bash
# The main job from end to end on this machine: gather text, train a tokenizer, train a deterministic sMLP on two
# ranks, kill one of them half-way, see it resume, and look at what came out. Everything lands in demo/ and runs/demo.
#   TEXT="path…" scripts/demo.sh     any files or folders instead of the headers under /usr/include
set -euo pipefail
cd "$(dirname "$0")/.."
smlp=build/bin/smlp
say() { printf '\n== %s\n' "$*"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

rm -rf demo runs/demo

SMLP=$smlp scripts/demo_data.sh

say "Training on two ranks; half-way one of them is killed"
$smlp run examples/demo.toml &
job=$!
trap 'kill "$job" 2>/dev/null || true' EXIT
(
  while ! grep -q '"step":150[,}]' runs/demo/metrics.jsonl 2>/dev/null; do
    kill -0 "$job" 2>/dev/null || exit 0
    sleep 0.1
  done
  cp runs/demo/targets.json demo/  # which lists those that answer: after the end none
  read -r _ _ _ _ victim _ < runs/demo/heartbeats/rank-0001
  say "Killing rank 1 (process $victim) with SIGKILL"
  kill -9 "$victim"
) &
killer=$!
wait "$job"
trap - EXIT
wait "$killer"

say "What came out"
python3 - <<'PY'
import json
events = [json.loads(line) for line in open("runs/demo/events.jsonl")]
scores = [e for e in events if e["event"] == "evaluation"]
print("validation perplexity, %d tokens: %.1f before training, %.1f after"
      % (scores[-1]["tokens"], scores[0]["perplexity"], scores[-1]["perplexity"]))
PY
printf "and on all of it, from the checkpoint: "
$smlp eval runs/demo --data demo/valid
say "A sample"
$smlp generate runs/demo --prompt "#ifndef " --tokens 80 --temperature 0.7 --top-k 40 --seed 1
say "Its checkpoints, read again to the last byte"
$smlp checkpoint verify runs/demo
say "Its metrics were served, while it ran, at"
python3 -c 'import json; [print("http://%s/metrics" % t) for g in json.load(open("demo/targets.json")) for t in g["targets"]]'
