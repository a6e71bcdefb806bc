#!/usr/bin/env bash
# Installs the Debian packages that building, testing and the demo need, and only those missing.
#
# No service is started by it: the tests and the demo run private copies of containerd, nginx,
# Mosquitto and the registry, in directories of their own. Units of packages that were not here
# before are left disabled, so that they don't appear after a reboot either.
#
#   setup/packages.sh          install what is missing
#   setup/packages.sh --list   print the names and do nothing
set -euo pipefail

packages=(
  gcc libc6-dev        # ring compiles a little C
  protobuf-compiler    # containerd-client generates its client from .proto files
  ca-certificates curl # the demo fetches a page; image pulls over TLS need roots
  iproute2 nftables procps python3 python3-venv
  containerd runc crun # the container backend, with both OCI runtimes
  docker-registry skopeo
  busybox-static nginx-light # what the demo's two images are made of
  mosquitto mosquitto-clients # the reference that the embedded broker is compared with
)

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Debian asks this file whether a package may start its service: 101 is no. A policy that the
# machine already has is moved aside and put back, also after a run that was killed.
policy=/usr/sbin/policy-rc.d
saved=$policy.before-marram
mark='# written by marram setup/packages.sh'
restore_policy() {
  if grep -qsxF "$mark" "$policy"; then rm -f "$policy"; fi
  if [ -e "$saved" ]; then mv -f "$saved" "$policy"; fi
}

missing=()
for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all ${#packages[@]} are installed"
  exit 0
fi
echo "packages: missing ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "packages: this script knows Debian's apt-get only; install the above by hand" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "packages: must be root to install them: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi

# Services known to come with these packages; those that are new here are kept from starting.
new_units=()
for unit in containerd docker-registry mosquitto nginx; do
  [ -e "/lib/systemd/system/$unit.service" ] || new_units+=("$unit.service")
done

trap restore_policy EXIT
trap 'exit 130' INT TERM HUP
restore_policy
if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
  echo "packages: apt-get update (attempt $attempt of 3)"
  if apt-get update -q -o Acquire::Retries=3; then break; fi
  if [ "$attempt" -eq 3 ]; then
    echo "packages: apt-get update failed three times; see the lines above" >&2
    exit 1
  fi
  sleep $((attempt * 5))
done
echo "packages: installing ${#missing[@]}, this takes about a minute"
apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 \
  -o Dpkg::Options::=--force-confold "${missing[@]}"

if command -v systemctl >/dev/null; then
  for unit in "${new_units[@]}"; do
    if [ -e "/lib/systemd/system/$unit" ]; then systemctl --quiet disable "$unit" || true; fi
  done
fi
echo "packages: installed ${missing[*]}; no service was started"
