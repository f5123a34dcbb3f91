#!/usr/bin/env bash
# Packs a build for a machine that has a GPU, CUDA and little else (docs/gpu_check.md): the programs, the libraries that they
# need but for those of the compiler, of C and of CUDA, Open MPI, and the golden files. The archive's folder, smlp-gpu, can lie
# anywhere; `source smlp-gpu/env.sh` makes its programs run, and says which cuBLAS they take.
#   scripts/gpu_pack.sh BUILD OUT.tar.xz [PROGRAM…]    by default smlp, smlp-worker and the three programs of ctest's label gpu
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
readonly root unavailable=69
readonly of_the_compiler='/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|stdc\+\+|gcc_s))\.so'
readonly of_cuda='/lib(cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nccl|nvrtc[a-z-]*|nvJitLink)\.so'
readonly toolkit=${CUDA_HOME:-/usr/local/cuda}
# Open MPI's parts for networks and schedulers that are not there; they need libraries of their own.
readonly left_behind='mca_.*(ucx|ofi|psm|openib|usnic|slurm|flux|gridengine|monitoring|memheap|scoll|spml|sshmem|romio)'

say() { printf 'gpu_pack: %s\n' "$*" >&2; }
fail() { say "$*"; exit $unavailable; }

# Of all files given, the libraries that ldd finds: "name path". One that it does not find, and that is not CUDA's, is an error.
needed_by() {
  local all missing
  all=$(for file in "$@"; do ldd "$file"; done | awk '/=>/ {print $1, ($3 ~ /^\//) ? $3 : "missing"}' | sort -u)
  missing=$(awk '$2 == "missing" {print "/" $1}' <<<"$all" | grep -vE "$of_cuda" | cut -c2- | paste -sd ' ') || true
  [ -z "$missing" ] || fail "the programs need $missing, which ldd does not find here"
  printf '%s\n' "$all"
}

# Those of "name path" that are CUDA's, or, with -v, that are not.
cuda_libraries() {
  local name path of
  while read -r name path; do
    of=cuda
    [[ /$name =~ $of_cuda || $path == "$toolkit"/* || $(readlink -f "$path") == "$(readlink -f "$toolkit")"/* ]] || of=others
    if [ "$of" = "${1:-cuda}" ]; then printf '%s %s\n' "$name" "$path"; fi
  done
}

mpi_path() { ompi_info --parsable --path "$1" | awk -F : -v name="$1" '$2 == name && !said {print $3; said = 1}'; }

# Laid out under $pack/mpi as under Open MPI's own prefix, so that OPAL_PREFIX finds all of it.
pack_mpi() {
  local prefix plugins
  command -v mpirun ompi_info >/dev/null || fail "the programs need Open MPI, and mpirun or ompi_info is not in the path"
  prefix=$(mpi_path prefix) plugins=$(mpi_path pkglibdir)
  mkdir -p "$pack/mpi/bin" "$pack/mpi/etc" "$pack/mpi/share" "$pack/mpi${plugins#"$prefix"}"
  cp -L "$(command -v mpirun)" "$(mpi_path bindir)/orted" "$pack/mpi/bin"
  find "$plugins" -name 'mca_*.so' | grep -vE "$left_behind" | xargs cp -Lt "$pack/mpi${plugins#"$prefix"}"
  cp -rL "$(mpi_path sysconfdir)" "$pack/mpi/etc/openmpi"
  cp -rL "$(mpi_path pkgdatadir)" "$pack/mpi/share/openmpi"
}

golden_folder() {
  for folder in "${SMLP_GOLDEN_DIR:-}" "${SMLP_SHARED_DATA:+$SMLP_SHARED_DATA/golden}" "$root/../shared/data/golden"; do
    if [ -n "$folder" ] && [ -d "$folder" ]; then printf '%s\n' "$folder"; return; fi
  done
}

write_env() {
  cat >"$pack/env.sh" <<'ENV'
# To be sourced by bash: lets the programs of this folder run where it lies. `smlp_run PROGRAM…` starts one with their libraries,
# as scripts/gpu_check.py does by itself: these are in SMLP_LIBRARY_PATH, and other programs, PyTorch for one, keep their own.
smlp_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$smlp_here/bin:$smlp_here/mpi/bin:$PATH
export OPAL_PREFIX=$smlp_here/mpi OPAL_SYSCONFDIR=$smlp_here/mpi/etc/openmpi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PMIX_MCA_pcompress_base_silence_warning=1
if [ -d "$smlp_here/golden" ]; then export SMLP_GOLDEN_DIR=$smlp_here/golden; fi

smlp_run() { LD_LIBRARY_PATH=$SMLP_LIBRARY_PATH${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"; }

# Where CUDA's libraries may be: the packages that a Python with PyTorch has, the toolkit, and the system.
smlp_cuda_folders() {
  python3 - <<'PYTHON' 2>/dev/null
import importlib.util, pathlib
found = importlib.util.find_spec("nvidia")
for place in found.submodule_search_locations if found else ():
    for folder in sorted(pathlib.Path(place).glob("*/lib")):
        print(folder)
PYTHON
  printf '%s\n' "${CUDA_HOME:-/usr/local/cuda}"/{lib64,lib,targets/x86_64-linux/lib} /usr/local/cuda-*/lib64
  printf '%s\n' /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/local/lib
}

# Of several cuBLASes the newest; of two as new PyTorch's own, so that both sides of a comparison multiply by one. Which one it
# is goes to stderr, with those passed over. Its folder comes first: with it come the other libraries that lie there.
smlp_choose_cublas() {
  local name folder file seen= version best=-1 chosen= passed_over= built
  name=$(grep -m 1 '^libcublasLt\.so' "$smlp_here/cuda_libraries") || return 0
  while read -r folder; do
    file=$folder/$name
    [ -e "$file" ] || continue
    file=$(readlink -f "$file")
    if [[ $seen == *":$file:"* ]]; then continue; fi
    seen+=:$file:
    version=$(python3 "$smlp_here/versions.py" number "$folder/$name" 2>/dev/null) || version=0
    if [ "$version" -gt "$best" ]; then
      passed_over+=${chosen:+" $best of $chosen"} best=$version chosen=$folder
    else
      passed_over+=" $version of $folder"
    fi
  done < <(smlp_cuda_folders; tr : '\n' <<<"${LD_LIBRARY_PATH:-}")
  [ -n "$chosen" ] || return 0
  SMLP_LIBRARY_PATH+=:$chosen
  echo "env.sh: cuBLAS $best of $chosen${passed_over:+; passed over:$passed_over}" >&2
  built=$(cat "$smlp_here/cublas_version")
  if [ "$best" -gt 0 ] && [ "$best" -lt "$built" ]; then
    echo "env.sh: that is older than $built, with which these programs were built: calls that it refuses go other ways" >&2
  fi
}

smlp_find_libraries() {
  local name folder found other
  SMLP_LIBRARY_PATH=$smlp_here/lib
  smlp_choose_cublas
  while read -r name; do
    found=
    while read -r folder; do
      if [ -e "$folder/$name" ]; then found=$folder; break; fi
    done < <(tr : '\n' <<<"$SMLP_LIBRARY_PATH${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; smlp_cuda_folders)
    if [ -z "$found" ]; then
      echo "env.sh: $name is in none of the usual places; name its folder in LD_LIBRARY_PATH" >&2
      other=$(while read -r folder; do ls "$folder/${name%.so.*}".so.[0-9]* 2>/dev/null; done < <(smlp_cuda_folders) | head -1)
      [ -z "$other" ] || echo "env.sh: here is ${other##*/}: these programs were built with another CUDA; build on this machine (scripts/bare_build.sh)" >&2
    elif [[ :$SMLP_LIBRARY_PATH: != *:$found:* ]]; then
      SMLP_LIBRARY_PATH+=:$found
    fi
  done <"$smlp_here/cuda_libraries"
  export SMLP_LIBRARY_PATH
}
smlp_find_libraries
ENV
}

# CUDA's libraries that must be there: what ldd names, and what programs open by themselves for attention.
write_cuda_libraries() {
  local names major
  names=$(cuda_libraries <<<"$needed" | cut -d' ' -f1)
  major=$(sed -n 's/^libcublas\.so\.//p' <<<"$names")
  if [ -n "$major" ]; then names+=$'\n'$(printf '%s\n' "libcudart.so.$major" "libnvrtc.so.$major" libcudnn.so.9); fi
  sed '/^$/d' <<<"$names" | sort -u >"$pack/cuda_libraries"
  cp "$root/scripts/gpu_checks/versions.py" "$pack"
  if ! python3 "$pack/versions.py" number "$(awk '$1 ~ /^libcublasLt/ {print $2}' <<<"$needed")" >"$pack/cublas_version"; then
    echo 0 >"$pack/cublas_version"
  fi
}

if [ $# -lt 2 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 64
fi
build=$1 out=$2
shift 2
programs=("$@")
[ $# -gt 0 ] || programs=(smlp smlp-worker cuda_device_test cuda_device_golden_test cuda_device_training_test)
for program in "${programs[@]}"; do
  [ -x "$build/bin/$program" ] || fail "$build/bin holds no $program"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/smlp-gpu
mkdir -p "$pack/bin" "$pack/lib" "$(dirname "$out")"
for program in "${programs[@]}"; do cp -L "$build/bin/$program" "$pack/bin"; done
needed=$(needed_by "$pack"/bin/*) mpi=
if [[ $needed == *libmpi.so* ]]; then
  pack_mpi
  mpi=", $(mpirun --version | sed -n 1p)"
fi
needed=$(find "$pack" -type f \( -name '*.so' -o -path '*/bin/*' \) -print0 | { mapfile -d '' files; needed_by "${files[@]}"; })
cuda_libraries others <<<"$needed" | cut -d' ' -f2 | grep -vE "$of_the_compiler" | xargs cp -Lt "$pack/lib"
write_cuda_libraries
write_env
golden=$(golden_folder)
if [ -n "$golden" ]; then
  mkdir "$pack/golden"
  cp "$golden"/*.json "$pack/golden"
fi
tar -C "$work" -c smlp-gpu | xz -T0 >"$out.part"
mv "$out.part" "$out"

megabytes=$(stat -c %s "$out" | awk '{printf "%.1f", $1 / 1e6}')
libraries=$(find "$pack/lib" -type f | wc -l) golden_files=$(find "$pack" -path '*/golden/*' | wc -l)
say "$out has $megabytes MB: ${#programs[@]} programs, $libraries libraries$mpi and $golden_files golden files"
if [ -s "$pack/cuda_libraries" ]; then say "the machine must have $(paste -sd ' ' "$pack/cuda_libraries")"; fi
