#!/usr/bin/env bash
# Deploys examples/clientsrvr.json on this machine and takes everything away again.
#
#   demo/run.sh            the demo; PROFILE=dev builds without optimization
#   demo/run.sh --clean    only removes what a killed demo left behind
#
# All that it starts lives below /var/lib/marram-demo: a short path, since sockets lie there, and
# a fixed one, so that the next run finds what a killed one left. It can be interrupted at any
# point. Logs of a run that failed are kept in target/demo-logs.
set -euo pipefail
cd "$(dirname "$0")/.."

state=/var/lib/marram-demo
# Not the usual one, so that a node that this machine runs already is left alone.
cgroup=marram-demo
lock=/run/lock/marram-demo
target=${CARGO_TARGET_DIR:-target}
logs=$target/demo-logs
profile=${PROFILE:-quick}
ports=(6080 60 10000 10001 10003)
page_url=http://127.0.0.1:6080/
# Until both instances run: the pull is local, so this is for slow machines.
apply_seconds_max=180
removal_seconds_max=60

doing='getting ready'
step() { doing=$1; printf '\n==> %3d s  %s\n' "$SECONDS" "$1"; }
die() { printf 'demo: failed while %s: %s\n' "$doing" "$1" >&2; exit 1; }
marram() { "$bin/marram" "$@" 9>&-; }

# What must be the same before and after. Mounts and control groups of others come and go on a
# machine in use, so only what could be ours is looked at.
traces() {
  grep -F "$state" /proc/self/mountinfo || true
  find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup" 2>/dev/null || true
  for port in "${ports[@]}"; do ss -Hltn "sport = :$port"; done
  ls -d "$state" /run/containerd 2>/dev/null || true
  nft list tables 2>/dev/null | grep marram || true
  ip -o link | cut -d' ' -f2
}

keep_logs() {
  rm -rf "$logs"
  mkdir -p "$logs"
  (cd "$state" && find . -name '*.log' -type f -exec cp --parents {} "$OLDPWD/$logs/" \;) || true
  echo "demo: logs are in $logs" >&2
}

# Ends and removes everything, in the order in which it depends on each other; may be called at
# any time and again.
take_down() {
  if [ -x "${bin:-}/marram" ] && [ -d "$state/tiers" ]; then
    marram down --quiet --dir "$state/tiers" --purge || echo "demo: marram down failed" >&2
  fi
  demo/stack.sh stop "$state/stack" 9>&-
  # The parent of the workloads' groups stays where it was made; it is empty now.
  rmdir "/sys/fs/cgroup/$cgroup" /sys/fs/cgroup/*/"$cgroup" 2>/dev/null || true
  if grep -qF "$state" /proc/self/mountinfo; then
    echo "demo: mounts are left below $state, so it stays" >&2
    return 1
  fi
  rm -rf --one-file-system "$state"
}

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  if [ "$status" -ne 0 ] && [ -d "$state" ]; then keep_logs; fi
  take_down >/dev/null || status=1
  if [ "$status" -eq 0 ] && [ "$(traces)" != "$before" ]; then
    echo 'demo: failed while cleaning up: the machine is not as it was:' >&2
    diff <(echo "$before") <(traces) >&2 || true
    status=1
  fi
  if [ "$status" -eq 0 ] && [ -n "${instances:-}" ]; then
    printf '\n%s\n' "$instances"
    echo "demo: both services were RUNNING; $page_url answered: $title"
    echo "demo: passed in $SECONDS s, and the machine is as it was"
  fi
  exit "$status"
}

check_machine() {
  [ "$(id -u)" -eq 0 ] || die 'must be root, since containers are'
  local port user
  for port in "${ports[@]}"; do
    user=$(ss -Hltnp "sport = :$port")
    [ -z "$user" ] || die "port $port is in use: $user"
  done
}

build() {
  local folder=$profile
  if [ "$profile" = dev ]; then folder=debug; fi
  # The same selection as `make test`, so that what one has built serves the other.
  cargo build --locked --workspace --bins --profile "$profile" 9>&- || die 'the build failed'
  bin=$target/$folder
}

mkdir -p /run/lock
# What is started below gets no copy of this lock (9>&-): it may outlive a demo that is killed.
exec 9>"$lock"
flock --nonblock 9 || die "another demo runs; it holds $lock"
for folder in quick debug release; do
  if [ -x "$target/$folder/marram" ]; then bin=$target/$folder; fi
done
if [ -d "$state" ]; then
  step 'removing what an earlier demo left'
  take_down
fi
if [ "${1:-}" = --clean ]; then
  echo 'demo: nothing of it is on this machine'
  exit 0
fi
check_machine
before=$(traces)
trap finish EXIT
trap 'echo "demo: interrupted while $doing" >&2; exit 130' INT TERM HUP

step "building (profile $profile)"
build
mkdir -p -m 700 "$state"
# The command line keeps its login there, not in the home of who runs this.
export MARRAM_CONFIG=$state/cli.toml

step 'building two images, starting a registry and a containerd of our own'
demo/stack.sh start "$state/stack" 9>&-
. "$state/stack/env"

step 'starting root, cluster and node'
# What an operator of a site without internet writes: where containerd is, and which registry on
# the site stands in for docker.io.
cat >"$state/node.toml" <<CONFIG
runtime_dir = "$state/run"

[native]
cgroup_parent = "/$cgroup"

[containerd]
cgroup_parent = "/$cgroup"
socket = "$CONTAINERD_ADDRESS"
config = "$state/stack/containerd.toml"

[containerd.registries."docker.io"]
mirrors = [{ url = "http://$REGISTRY_ADDRESS", insecure = true }]
mirrors_only = true
CONFIG
marram up --dir "$state/tiers" --node-config "$state/node.toml"

step 'deploying examples/clientsrvr.json'
marram apply examples/clientsrvr.json --wait --timeout "${apply_seconds_max}s"

step "fetching $page_url"
page=$(curl --silent --show-error --fail --max-time 10 "$page_url") || die "no page from $page_url"
echo "$page"
title=$(grep -o '<h1>.*</h1>' <<<"$page" | sed 's/<[^>]*>//g')
[ "$title" = 'Welcome to nginx' ] || die "the page is not the one in the image: $page"

step 'marram get instances'
instances=$(marram get instances)
echo "$instances"
[ "$(grep -ciw running <<<"$instances")" -eq 2 ] || die 'not both services are RUNNING'

step 'deleting the application'
marram delete application clientsrvr --wait --timeout "${removal_seconds_max}s"
left=$(ctr --address "$CONTAINERD_ADDRESS" -n marram containers ls -q)
[ -z "$left" ] || die "containers are left: $left"

step 'stopping what was started'
