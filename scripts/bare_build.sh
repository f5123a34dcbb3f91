#!/usr/bin/env bash
# Builds smlp where nothing but a compiler of C++20, make and CMake is installed (and CUDA, which is used where nvcc is found):
# for one rank, without MPI, HDF5, oneDNN, OpenBLAS and prometheus-cpp (docs/decisions/0013). What is left are five
# libraries' headers and two static libraries of C: they come out of Debian 12's packages, unpacked without root.
#   scripts/bare_build.sh           into build-bare/bin; fetches what is not there yet, on Debian 12, with apt-get download
#   scripts/bare_build.sh --fetch   only fetches: copy build-bare/prefix (8 MB) to the same place on a machine that can't
set -euo pipefail
cd "$(dirname "$0")/.."

readonly unavailable=69
readonly prefix=build-bare/prefix
readonly packages=(libfmt-dev libspdlog-dev libtomlplusplus-dev libcli11-dev nlohmann-json3-dev libxxhash-dev libpcre2-dev)

say() { printf 'bare_build: %s\n' "$*" >&2; }

# In place only when it is whole.
fetch() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "there is no $prefix, and no apt-get to fetch it with: run scripts/bare_build.sh --fetch on a Debian 12 and copy it here"
    exit $unavailable
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  if ! (cd "$work" && apt-get download -q "${packages[@]}") >"$work/log" 2>&1; then
    cat "$work/log" >&2
    say "a package could not be fetched"
    exit $unavailable
  fi
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
  mkdir -p "$work/prefix/lib" build-bare
  cp -r "$work/unpacked/usr/include" "$work/prefix/include"
  find "$work/unpacked" \( -name libxxhash.a -o -name libpcre2-8.a \) -exec cp {} "$work/prefix/lib" \;
  scripts/cudnn_frontend.sh --into "$work/prefix" || true  # without it, attention is computed without cuDNN
  cp -r "$work/prefix" "$prefix.part"
  mv "$prefix.part" "$prefix"
}

[ -e "$prefix" ] || fetch
if [ "${1:-}" = --fetch ]; then
  say "$prefix is there"
  exit 0
fi

preset=cpu-bare
if PATH="$PATH:/usr/local/cuda/bin" command -v "${CUDACXX:-nvcc}" >/dev/null; then preset=cuda-bare; fi
say "preset $preset"
cmake --preset $preset
cmake --build --preset $preset --parallel "$(nproc)" --target smlp smlp-worker
say "build-bare/bin holds smlp and smlp-worker"
