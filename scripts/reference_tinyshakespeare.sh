#!/usr/bin/env bash
# Trains examples/tinyshakespeare.toml on the first 90 % of a text (Karpathy's tinyshakespeare), one byte a token, and
# prints the loss a character on the last 10 %.      scripts/reference_tinyshakespeare.sh path/to/input.txt
set -euo pipefail
text=$(realpath "${1:?usage: scripts/reference_tinyshakespeare.sh TEXT}")
cd "$(dirname "$0")/.."
smlp=build/bin/smlp
data=runs/tinyshakespeare-data

rm -rf "$data" runs/tinyshakespeare
mkdir -p "$data"
cut=$(($(stat -c %s "$text") * 9 / 10))
head -c "$cut" "$text" > "$data/train.txt"
tail -c "+$((cut + 1))" "$text" > "$data/valid.txt"
for part in train valid; do
  $smlp data prepare --input "$data/$part.txt" --tokenizer bytes --output "$data/$part"
done
$smlp run examples/tinyshakespeare.toml
$smlp eval runs/tinyshakespeare --data "$data/valid"
