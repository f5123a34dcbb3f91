#!/usr/bin/env bash
# Trains a job of examples/ (tinyshakespeare.toml, or the one named) on the first 90 % of a text (Karpathy's
# tinyshakespeare), one byte a token, and prints the loss a character on the last 10 %.
#   scripts/reference_tinyshakespeare.sh path/to/input.txt [examples/tinyshakespeare-transformer.toml]
set -euo pipefail
text=$(realpath "${1:?usage: scripts/reference_tinyshakespeare.sh TEXT [JOB]}")
job=${2:-examples/tinyshakespeare.toml}
cd "$(dirname "$0")/.."
smlp=build/bin/smlp
data=runs/tinyshakespeare-data

name=$(basename "$job" .toml)
rm -rf "$data" "runs/$name"
mkdir -p "$data"
cut=$(($(stat -c %s "$text") * 9 / 10))
head -c "$cut" "$text" > "$data/train.txt"
tail -c "+$((cut + 1))" "$text" > "$data/valid.txt"
for part in train valid; do
  $smlp data prepare --input "$data/$part.txt" --tokenizer bytes --output "$data/$part"
done
$smlp run "$job"
$smlp eval "runs/$name" --data "$data/valid"
