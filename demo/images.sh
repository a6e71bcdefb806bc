#!/usr/bin/env bash
# Builds the images of the demo and of the end-to-end tests out of this machine's Debian packages.
#
#   demo/images.sh DIR    writes DIR/busybox, DIR/nginx and DIR/curl, each an OCI image layout
#
# A machine without a way to Docker Hub can't pull `nginx:latest`, so these stand in for it: the
# programs are Debian's, the image configuration (entrypoint, command, stop signal) is shaped like
# the original's. Each has two layers, but for busybox, which is the lower one alone. The same
# packages give the same digests: file order, times and owners are fixed.
set -euo pipefail
umask 022

out=${1:?"usage: demo/images.sh DIR"}
mkdir -p "$out"
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT

die() { echo "images: $*" >&2; exit 1; }
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  armv7l) architecture=arm ;;
  riscv64) architecture=riscv64 ;;
  *) die "no OCI name known for the architecture $(uname -m)" ;;
esac

# Copies programs with the shared objects they load, each to the path it has here.
copy_programs() { # ROOTFS PROGRAM...
  local rootfs=$1 program object
  shift
  for program in "$@"; do
    [ -x "$program" ] || die "$program is not installed; run setup/packages.sh"
    install -D -m 755 "$program" "$rootfs$program"
    for object in $(ldd "$program" | grep -o '/[^ ]*\.so[^ ]*'); do
      [ -e "$rootfs$object" ] || install -D -m 755 "$(readlink -f "$object")" "$rootfs$object"
    done
  done
}

blob() { # LAYOUT FILE: stores the file under its digest, prints "DIGEST SIZE"
  local digest
  digest=$(sha256sum "$2" | cut -d' ' -f1)
  cp "$2" "$1/blobs/sha256/$digest"
  echo "sha256:$digest $(stat -c %s "$2")"
}

# Writes an OCI image layout with one layer for each ROOTFS, tagged `image`.
write_image() { # NAME CONFIG-JSON ROOTFS...
  local name=$1 layout=$out/$1 config=$2 rootfs digest size layers='' diff_ids='' entry
  shift 2
  rm -rf "$layout"
  mkdir -p "$layout/blobs/sha256"
  for rootfs in "$@"; do
    tar --create --directory "$rootfs" --sort=name --mtime=@0 --owner=0 --group=0 \
      --numeric-owner --file "$work/layer.tar" .
    diff_ids+=",\"sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)\""
    gzip --no-name --fast --force "$work/layer.tar"
    read -r digest size < <(blob "$layout" "$work/layer.tar.gz")
    entry='{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"'
    layers+=",$entry,\"digest\":\"$digest\",\"size\":$size}"
  done
  printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":%s,%s}' \
    "$architecture" "$config" "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${diff_ids:1}]}" \
    >"$work/config"
  read -r digest size < <(blob "$layout" "$work/config")
  entry='{"mediaType":"application/vnd.oci.image.config.v1+json"'
  printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"digest":"%s","size":%s},"layers":[%s]}' \
    application/vnd.oci.image.manifest.v1+json "$entry" "$digest" "$size" "${layers:1}" \
    >"$work/manifest"
  read -r digest size < <(blob "$layout" "$work/manifest")
  entry='{"mediaType":"application/vnd.oci.image.manifest.v1+json"'
  printf '{"schemaVersion":2,"manifests":[%s,"digest":"%s","size":%s,"annotations":%s}]}' \
    "$entry" "$digest" "$size" '{"org.opencontainers.image.ref.name":"image"}' \
    >"$layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  echo "images: $name $digest"
}

base_rootfs() {
  local root=$work/base applet
  mkdir -p "$root"/{bin,etc,proc,sys,dev,run,root,tmp,var/log}
  chmod 1777 "$root/tmp"
  [ -x /bin/busybox ] || die "busybox-static is not installed; run setup/packages.sh"
  install -m 755 /bin/busybox "$root/bin/busybox"
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
  done
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'www-data:x:33:33:www-data:/var/www:/bin/false' \
    'nobody:x:65534:65534:nobody:/:/bin/false' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'www-data:x:33:' 'nogroup:x:65534:' >"$root/etc/group"
}

# Listens on container port 60, since the example descriptor maps 6080:60.
nginx_rootfs() {
  local root=$work/nginx
  copy_programs "$root" /usr/sbin/nginx
  mkdir -p "$root"/{etc/nginx,usr/share/nginx/html,var/log/nginx,var/lib/nginx,run}
  ln -s /dev/stdout "$root/var/log/nginx/access.log"
  ln -s /dev/stderr "$root/var/log/nginx/error.log"
  cat >"$root/etc/nginx/nginx.conf" <<'CONF'
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 64; }
http {
  access_log /var/log/nginx/access.log;
  default_type text/html;
  server {
    listen 60;
    root /usr/share/nginx/html;
  }
}
CONF
  cat >"$root/usr/share/nginx/html/index.html" <<'PAGE'
<!DOCTYPE html>
<html><head><title>Welcome to nginx</title></head>
<body><h1>Welcome to nginx</h1><p>This page comes out of a container that Marram started.</p></body>
</html>
PAGE
}

curl_rootfs() {
  local root=$work/curl
  copy_programs "$root" /usr/bin/curl
  cat >"$root/entrypoint.sh" <<'ENTRY'
#!/bin/sh
# An option or nothing is meant for curl; anything else is a program of its own.
case "${1:--}" in -*) exec curl "$@" ;; *) exec "$@" ;; esac
ENTRY
  chmod 755 "$root/entrypoint.sh"
}

path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'
base_rootfs
nginx_rootfs
curl_rootfs
write_image busybox "{$path,\"Cmd\":[\"sh\"]}" "$work/base"
write_image nginx "{$path,\"Entrypoint\":[\"/usr/sbin/nginx\"],\"Cmd\":[\"-g\",\"daemon off;\"],\
\"StopSignal\":\"SIGQUIT\",\"ExposedPorts\":{\"60/tcp\":{}}}" "$work/base" "$work/nginx"
write_image curl "{$path,\"Entrypoint\":[\"/entrypoint.sh\"],\"Cmd\":[\"curl\"]}" \
  "$work/base" "$work/curl"
