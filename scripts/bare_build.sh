#!/usr/bin/env bash
# Builds smlp where nothing but a compiler of C++20, CMake and make or ninja is installed (and CUDA, used where nvcc is found):
# for one rank, without MPI, HDF5, oneDNN, OpenBLAS and prometheus-cpp (docs/decisions/0013). What is left are five
# libraries' headers and two static libraries of C: they come out of Debian 12's packages, unpacked without root. cuDNN is also
# taken from the package that came with a PyTorch, where neither CUDNN_ROOT, the toolkit nor the system has its headers.
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
  rm -rf "$prefix.part"  # of a fetch that was interrupted
  cp -r "$work/prefix" "$prefix.part"
  mv "$prefix.part" "$prefix"
}

[ -e "$prefix" ] || fetch
if [ "${1:-}" = --fetch ]; then
  say "$prefix is there"
  exit 0
fi

# CMake's own choice is make.
choose_generator() {
  if [ -n "${CMAKE_GENERATOR:-}" ] || command -v make >/dev/null; then return; fi
  if ! command -v ninja >/dev/null; then
    say "there is neither make nor ninja"
    exit $unavailable
  fi
  export CMAKE_GENERATOR=Ninja
  say "there is no make: ninja builds"
}

# Before minutes of compiling: nvcc must find cuBLAS, its headers and what is linked.
need_cublas() {
  local nvcc=$1 place
  place=$(mktemp -d)
  printf '%s\n' '#include <cublasLt.h>' '#include <cublas_v2.h>' \
    'int main() { cublasHandle_t handle; return cublasLtGetVersion() > 0 && cublasCreate(&handle) == 0; }' >"$place/try.cu"
  if ! "$nvcc" "$place/try.cu" -lcublas -lcublasLt -o "$place/try" >"$place/log" 2>&1; then
    tail -n 5 "$place/log" >&2
    rm -rf "$place"
    say "$nvcc can't compile and link a call of cuBLAS (above): libcublas, libcublasLt and their headers belong to its" \
      "toolkit; LIBRARY_PATH and CPATH may name their folders, or CUDACXX another nvcc"
    exit $unavailable
  fi
  rm -rf "$place"
}

# The folder of cuDNN that came with a Python's PyTorch, if that has headers.
cudnn_of_python() {
  python3 - <<'PYTHON' 2>/dev/null
import importlib.util, pathlib
found = importlib.util.find_spec("nvidia")
for place in found.submodule_search_locations if found else ():
    folder = pathlib.Path(place) / "cudnn"
    if (folder / "include" / "cudnn.h").exists():
        print(folder)
        break
PYTHON
}

choose_cudnn() {
  local nvcc=$1 toolkit folder
  if [ -n "${CUDNN_ROOT:-}" ]; then return; fi
  toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  for folder in "$toolkit/include" "$toolkit"/targets/*/include /usr/{,local/}include /usr/include/x86_64-linux-gnu; do
    if [ -e "$folder/cudnn.h" ]; then return; fi
  done
  folder=$(cudnn_of_python) || folder=
  if [ -n "$folder" ]; then
    export CUDNN_ROOT=$folder
    say "cuDNN is that of $folder"
  fi
}

choose_generator
preset=cpu-bare
if nvcc=$(PATH="$PATH:/usr/local/cuda/bin" command -v "${CUDACXX:-nvcc}"); then
  preset=cuda-bare
  need_cublas "$nvcc"
  choose_cudnn "$nvcc"
fi
say "preset $preset"
here=()
if [ $preset = cuda-bare ] && nvidia-smi -L >/dev/null 2>&1; then
  here=(-DCMAKE_CUDA_ARCHITECTURES=native)  # for the cards that are here alone, in a third of the time
fi
cmake --preset $preset "${here[@]}"
cmake --build --preset $preset --parallel "$(nproc)" --target smlp smlp-worker
say "build-bare/bin holds smlp and smlp-worker"
