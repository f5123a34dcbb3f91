#!/usr/bin/env bash
# Fuzzes everything that reads what somebody else wrote (tests/fuzz): clang's libFuzzer, with the address and
# undefined-behaviour sanitizers. Needs Debian's clang-19, libclang-rt-19-dev and libomp-19-dev beside what scripts/setup.sh
# installs.
#   scripts/fuzz.sh                 every target for a minute
#   scripts/fuzz.sh 600 job_file    one target for ten minutes
# What was found to reach new code is kept in build-fuzz/corpus and used again; an input that breaks a target is left in
# build-fuzz/found, and the script ends with 1. CC and CXX name another clang.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true

cmake --preset fuzz -DCMAKE_C_COMPILER="${CC:-clang-19}" -DCMAKE_CXX_COMPILER="${CXX:-clang++-19}" >/dev/null
cmake --build --preset fuzz --parallel "$(nproc)" | tail -1
[ $# -gt 0 ] || set -- $(cd build-fuzz/bin && ls -d fuzz_* | grep -v _test | sed s/fuzz_//)

status=0
for target in "$@"; do
  corpus=build-fuzz/corpus/$target found=build-fuzz/found/$target log=build-fuzz/found/$target.log
  mkdir -p "$corpus" "$found"
  if build-fuzz/bin/fuzz_"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 \
      -artifact_prefix="$found/" "$corpus" >"$log" 2>&1; then
    echo "$target: $(grep -o 'Done .*' "$log" | tail -1), $(ls "$corpus" | wc -l) inputs kept"
  else
    status=1
    echo "$target: broken by an input in $found; run build-fuzz/bin/fuzz_$target on it"
    grep -m3 -E 'ERROR: |runtime error|does not hold|what\(\)' "$log" || tail -5 "$log"
  fi
done
exit $status
