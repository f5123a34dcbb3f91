#!/usr/bin/env bash
# The data of the demo, in demo/: text, a tokenizer trained on it, its tokens.
#   TEXT="path…" scripts/demo_data.sh     any files or folders instead of the headers under /usr/include
set -euo pipefail
cd "$(dirname "$0")/.."
smlp=${SMLP:-build/bin/smlp}
text=${TEXT:-}
megabytes=16  # of text at most: enough for this small model

say() { printf '\n== %s\n' "$*"; }

mkdir -p demo/text

say "Gathering text"
if [ -n "$text" ]; then
  # shellcheck disable=SC2086  # TEXT is a list of paths
  inputs=$(printf '%s\n' $text)
else
  python3 - "$megabytes" <<'PY'
import os, sys
limit = int(sys.argv[1]) << 20
names = []
for folder, folders, files in os.walk("/usr/include"):
    folders.sort()
    names += [os.path.join(folder, f) for f in sorted(files) if f.endswith((".h", ".hpp")) or "." not in f]
# Spread over all of them, so that a large library does not crowd out the rest.
total = 0
names = [n for k in range(7) for n in names[k::7]]
for count, name in enumerate(names):
    if not os.path.isfile(name):
        continue
    text = open(name, "rb").read()
    if total + len(text) > limit:
        break
    total += len(text)
    with open("demo/text/%05d.txt" % count, "wb") as out:
        out.write(text)
print("%d headers, %.1f MB" % (count, total / 1e6))
PY
  inputs=demo/text
fi

say "Training a tokenizer of 4,096 tokens, turning text into tokens"
# shellcheck disable=SC2086
$smlp data train-tokenizer --input $inputs --vocabulary 4096 --output demo/bpe
# shellcheck disable=SC2086
$smlp data prepare --input $inputs --tokenizer demo/bpe --output demo/train --valid-output demo/valid --valid-share 0.05
