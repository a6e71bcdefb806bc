#!/usr/bin/env bash
# A registry and a containerd of our own, with the demo's images: for `make demo` and the tests.
#
#   demo/stack.sh start DIR    starts both below DIR, which must not exist yet or be empty
#   demo/stack.sh stop DIR     ends both and every container, unmounts, and removes DIR
#
# DIR must be a short absolute path, since Unix sockets lie below it (their limit is 107 bytes).
# `start` writes DIR/env with the lines
#   CONTAINERD_ADDRESS=DIR/containerd.sock
#   REGISTRY_ADDRESS=127.0.0.1:PORT
# The registry speaks plain HTTP and holds library/nginx:latest, library/busybox:latest and
# curlimages/curl:7.82.0. Neither shares anything with a containerd that the machine runs already.
# `stop` may be called at any time and again, also when `start` or containerd was killed.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
. "$here/processes.sh"

die() { echo "stack: $*" >&2; exit 1; }
usage='usage: demo/stack.sh start|stop DIR'
verb=${1:?"$usage"}
dir=${2:?"$usage"}
case $dir in
  /*) ;;
  *) die "the directory must be an absolute path, not $dir" ;;
esac
[ ${#dir} -le 70 ] || die "$dir is ${#dir} bytes long; sockets below it allow 70 at most"
pids=$dir/pids
socket=$dir/containerd.sock

ctr_here() { ctr --address "$socket" --connect-timeout 5s "$@"; }

start_registry() {
  cat >"$dir/registry.yml" <<CONFIG
version: 0.1
log: { level: info }
storage: { filesystem: { rootdirectory: $dir/registry } }
http: { addr: "127.0.0.1:0", secret: local }
CONFIG
  start_process "$pids" registry "$dir/registry.log" docker-registry serve "$dir/registry.yml"
  wait_until 30 "$pids" registry grep -q 'listening on 127' "$dir/registry.log" ||
    die "the registry did not start; see $dir/registry.log"
}

registry_address() {
  grep -o 'listening on 127\.0\.0\.1:[0-9]*' "$dir/registry.log" | tail -1 | cut -d' ' -f3
}

start_containerd() {
  cat >"$dir/containerd.toml" <<CONFIG
version = 2
root = "$dir/root"
state = "$dir/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$socket"
[ttrpc]
address = "$socket.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
CONFIG
  start_process "$pids" containerd "$dir/containerd.log" containerd --config "$dir/containerd.toml"
  wait_until 60 "$pids" containerd ctr_here version ||
    die "containerd did not start; see $dir/containerd.log"
}

push_images() {
  local address=$1 image name
  "$here/images.sh" "$dir/images"
  for image in library/nginx:latest library/busybox:latest curlimages/curl:7.82.0; do
    name=${image##*/}
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
      "oci:$dir/images/${name%%:*}:image" "docker://$address/$image" ||
      die "could not push $image to $address; see $dir/registry.log"
  done
}

start() {
  local program
  for program in docker-registry containerd ctr runc skopeo; do
    command -v "$program" >/dev/null || die "$program is not installed; run setup/packages.sh"
  done
  [ "$(id -u)" -eq 0 ] || die "must be root, since containerd mounts file systems"
  if [ -n "$(ls -A "$dir" 2>/dev/null)" ]; then die "$dir is in use; demo/stack.sh stop $dir"; fi
  mkdir -p -m 700 "$dir"
  [ -e /run/containerd ] || touch "$dir/no-run-containerd-before"
  start_registry
  start_containerd
  push_images "$(registry_address)"
  printf 'CONTAINERD_ADDRESS=%s\nREGISTRY_ADDRESS=%s\n' "$socket" "$(registry_address)" \
    >"$dir/env.new"
  mv "$dir/env.new" "$dir/env"
  echo "stack: containerd on $socket, registry on $(registry_address)"
}

# Everything in every namespace: this containerd belongs to the stack alone.
remove_containers() {
  local namespace id
  for namespace in $(ctr_here namespaces ls -q); do
    for id in $(ctr_here -n "$namespace" tasks ls -q); do
      ctr_here -n "$namespace" tasks rm --force "$id" >>"$dir/stop.log" 2>&1 ||
        echo "stack: could not remove the task $id of $namespace" >&2
    done
    for id in $(ctr_here -n "$namespace" containers ls -q); do
      ctr_here -n "$namespace" containers rm "$id" >>"$dir/stop.log" 2>&1 ||
        echo "stack: could not remove the container $id of $namespace" >&2
    done
    # runc leaves the parents of its control groups behind, empty.
    rmdir "/sys/fs/cgroup/$namespace" /sys/fs/cgroup/*/"$namespace" 2>/dev/null || true
  done
}

unmount_below() {
  local mount
  awk -v prefix="$dir/" 'index($5, prefix) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r mount; do umount "$mount" || umount --lazy "$mount"; done
}

# containerd keeps its shims' sockets here whatever its configuration says; one that was killed
# leaves its own behind. Nothing is touched if the folder is another containerd's.
tidy_run_containerd() {
  local listening socket
  [ -e "$dir/no-run-containerd-before" ] && [ -d /run/containerd ] || return 0
  listening=$(ss -Hxl)
  for socket in /run/containerd/s/*; do
    if [ -S "$socket" ] && [[ $listening != *"$socket"* ]]; then rm -f "$socket"; fi
  done
  find /run/containerd -depth -type d -empty -delete
}

stop() {
  if [ ! -e "$pids" ]; then
    rmdir "$dir" 2>/dev/null || true
    echo "stack: nothing runs below $dir"
    return
  fi
  # A containerd that was killed leaves its containers running; one started again adopts them.
  if [ -e "$dir/containerd.toml" ]; then
    process_alive "$pids" containerd || start_containerd
    remove_containers
  fi
  end_process "$pids" containerd
  end_process "$pids" registry
  unmount_below
  tidy_run_containerd
  rm -rf --one-file-system "$dir"
  echo "stack: stopped, $dir removed"
}

case $verb in
  start) start ;;
  stop) stop ;;
  *) die "$usage" ;;
esac
