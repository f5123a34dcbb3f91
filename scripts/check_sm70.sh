#!/usr/bin/env bash
# Compiles every kernel of tensor/cuda for sm_70 (V100), which CUDA 13's own compiler no longer can: with Debian's clang
# and the device parts of CUDA 12.9 from PyPI (44 MB, kept in ~/.cache/smlp). Needs no GPU.
#   scripts/check_sm70.sh               installs what is missing, then compiles
#   scripts/check_sm70.sh --installed   ends with 77 where something is missing
set -euo pipefail
cd "$(dirname "$0")/.."

readonly clang=clang++-19
readonly toolkit="${XDG_CACHE_HOME:-$HOME/.cache}/smlp/cuda-12.9"
readonly wheels=(nvidia-cuda-nvcc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79)
readonly skipped=77

say() { printf 'check_sm70: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The wheels' folders as one toolkit, in place only when it is whole.
install_toolkit() {
  local work
  work=$(mktemp -d)
  python3 -m pip download -q --no-deps --only-binary=:all: -d "$work/wheels" "${wheels[@]}"
  mkdir -p "$work/cuda" "$(dirname "$toolkit")"
  for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/parts"; done
  cp -r "$work"/parts/nvidia/*/. "$work/cuda"
  chmod +x "$work"/cuda/bin/*
  echo '{"cuda": {"version": "12.9.0"}}' >"$work/cuda/version.json"
  rm -rf "$toolkit.part"
  cp -r "$work/cuda" "$toolkit.part"
  mv "$toolkit.part" "$toolkit"
  rm -r "$work"
}

if [ "${1:-}" = --installed ]; then
  command -v "$clang" >/dev/null || { say "skipped: $clang is not installed (scripts/check_sm70.sh installs it)"; exit $skipped; }
  [ -e "$toolkit/bin/ptxas" ] || { say "skipped: there is no $toolkit (scripts/check_sm70.sh installs it)"; exit $skipped; }
else
  command -v "$clang" >/dev/null ||
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends clang-19 >&2
  [ -e "$toolkit/bin/ptxas" ] || install_toolkit
fi

cubins=$(mktemp -d)
trap 'rm -r "$cubins"' EXIT
# Loops that clang leaves rolled are no mistakes, and a user's V100 is compiled for by nvcc 12.
compile() {
  "$clang" -std=c++20 -O2 -x cuda --cuda-device-only --cuda-gpu-arch=sm_70 --cuda-path="$2" -Wno-unknown-cuda-version \
    -Wno-pass-failed -I. -c "$1" -o "$3/$(basename "$1" .cu).cubin" ||
    { echo "check_sm70: $1 does not compile for sm_70" >&2; exit 1; }
}
export -f compile
export clang
printf '%s\n' tensor/cuda/*.cu | xargs -P "$(nproc)" -I{} bash -c 'compile "$@"' _ {} "$toolkit" "$cubins"
say "$(find "$cubins" -name '*.cubin' -size +0 | wc -l) files of kernels compile for sm_70"
