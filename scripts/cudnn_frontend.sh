#!/usr/bin/env bash
# Fetches the headers of cuDNN's C++ front end, with which a build with CUDA computes attention by cuDNN: out of a wheel of
# PyPI (12 MB), into ~/.cache/smlp/cudnn-frontend, where CMake looks for them (cmake/FindCUDNN.cmake). Says nothing and does
# nothing where they are there already, or where there is no nvcc. Ends with 69 where they can't be had: the build does
# without.
#   scripts/cudnn_frontend.sh               for the cuda presets of this machine (scripts/setup.sh calls it)
#   scripts/cudnn_frontend.sh --into DIR    into DIR/include, with or without nvcc
set -euo pipefail

readonly version=1.32.0
readonly sha256=c6006556017a4d1c914c52a556c71b1267f2d6a0500f742e7b4edef539878df0
readonly unavailable=69

say() { printf 'cudnn_frontend: %s\n' "$*" >&2; }

target="${XDG_CACHE_HOME:-$HOME/.cache}/smlp/cudnn-frontend"
if [ "${1:-}" = --into ]; then
  target=$2
elif ! PATH="$PATH:/usr/local/cuda/bin" command -v "${CUDACXX:-nvcc}" >/dev/null; then
  exit 0
fi
if [ -e "$target/include/cudnn_frontend.h" ]; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One wheel for every machine: it is for its headers alone.
echo "nvidia-cudnn-frontend==$version --hash=sha256:$sha256" >"$work/wanted"
if ! python3 -m pip --disable-pip-version-check download -q --retries 1 --timeout 20 --no-deps --only-binary=:all: \
  --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 \
  --require-hashes -r "$work/wanted" -d "$work" >"$work/log" 2>&1; then
  tail -n 3 "$work/log" >&2
  say "the headers of cuDNN's front end could not be fetched: builds with CUDA compute attention without cuDNN"
  exit $unavailable
fi
python3 -m zipfile -e "$work"/*.whl "$work/wheel"
# In place only when it is whole.
mkdir -p "$target/include"
mv "$work/wheel/include/cudnn_frontend.h" "$work/last"
cp -r "$work/wheel/include/." "$target/include"
cp "$work/last" "$target/include/cudnn_frontend.h.part"
mv "$target/include/cudnn_frontend.h.part" "$target/include/cudnn_frontend.h"
