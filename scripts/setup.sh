#!/usr/bin/env bash
# Installs what smlp builds, runs and tests with (scripts/packages.txt): with apt, as root or through sudo, on Debian
# and Ubuntu; where there is nvcc, cuDNN's front end too (scripts/cudnn_frontend.sh). Says nothing and does nothing when
# all of it is there. Elsewhere it names what to install and ends with 69.
#   SMLP_SKIP_SETUP=1    trust that all of it is there, however it was installed
set -euo pipefail
cd "$(dirname "$0")"

export LC_ALL=C  # one order for sort and comm

readonly unavailable=69
readonly policy=/usr/sbin/policy-rc.d

say() { printf 'setup: %s\n' "$*" >&2; }
give_up() {
  say "$*"
  say "where it is installed by other means, set SMLP_SKIP_SETUP=1"
  exit $unavailable
}

# The packages of packages.txt that are not installed.
missing_packages() {
  local wanted
  wanted=$(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' packages.txt | sort)
  # shellcheck disable=SC2086  # a list of names
  comm -23 <(printf '%s\n' "$wanted") \
    <(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
      sed -n 's/^installed //p' | sort -u)
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Up to three times, for mirrors and locks that fail for a moment. What apt says is shown when it fails for good.
apt() {
  local try log
  log=$(mktemp)
  for try in 1 2 3; do
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
      -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null; then
      rm -f "$log"
      return 0
    fi
    [ "$try" = 3 ] || sleep $((try * 3))
  done
  tail -n 20 "$log" >&2
  rm -f "$log"
  return 1
}

# Packages that come with a daemon (prometheus) must not start it: tests and the demo start their own.
hold_daemons() {
  [ ! -e "$policy" ] || return 0
  trap release_daemons EXIT
  as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy" || say "daemons may start when they are installed"
}
release_daemons() { as_root rm -f "$policy"; }

if [ "${SMLP_SKIP_SETUP:-0}" = 1 ]; then exit 0; fi

./cudnn_frontend.sh || true  # a build with CUDA does without, and has said so

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  give_up "this is neither Debian nor Ubuntu; install what these packages hold: $(sed -e 's/#.*//' -e '/^$/d' packages.txt | tr '\n' ' ')"
fi

missing=$(missing_packages)
if [ -z "$missing" ]; then exit 0; fi
list=$(tr '\n' ' ' <<<"$missing")
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
  give_up "these packages are missing, and neither root nor sudo is here to install them: $list"
fi

say "installing with apt: $list"
hold_daemons
apt update || say "the package lists could not be refreshed; trying with those that are here"
# shellcheck disable=SC2086  # a list of names
apt install --no-install-recommends $missing || give_up "apt could not install: $list"

missing=$(missing_packages)
if [ -n "$missing" ]; then give_up "still missing after the installation: $(tr '\n' ' ' <<<"$missing")"; fi
say "done"
