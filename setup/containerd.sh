#!/usr/bin/env bash
# Puts a containerd 2 into target/containerd-2, for the tests that run on both: Debian 12, which
# the tests are run on, has 1.6 only. The containerd that is installed stays as it is.
#
# It is Debian's own package of a later release, from the mirror that this machine's apt uses,
# checked by apt against the archive's keys and only unpacked, never installed. No root needed.
#
#   setup/containerd.sh          fetch it, if it is not here; remove the folder to get a newer one
#   setup/containerd.sh --path   print the folder of its programs and do nothing
set -euo pipefail
cd "$(dirname "$0")/.."

# By name, so that it grows old with that release: 13 has 1.7, this is the one after it.
release=forky
major=2
programs=(containerd ctr containerd-shim-runc-v2)
keys=/usr/share/keyrings/debian-archive-keyring.gpg

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/containerd-$major
if [ "${1:-}" = --path ]; then
  echo "$folder/usr/bin"
  exit 0
fi

die() { echo "containerd: $*" >&2; exit 1; }

# Prints the version of an unpacked copy; fails if a program is missing, does not run on this
# machine, or is not of the wanted major version.
version_in() { # FOLDER
  local program line
  for program in "${programs[@]}"; do [ -x "$1/usr/bin/$program" ] || return 1; done
  line=$("$1/usr/bin/containerd" --version) || return 1
  line=$(awk '{print $3}' <<<"$line")
  case ${line#v} in
    "$major".*) echo "${line#v}" ;;
    *) return 1 ;;
  esac
}

if version=$(version_in "$folder" 2>/dev/null); then
  echo "containerd: $version is in $folder"
  exit 0
fi

command -v apt-get >/dev/null || die "this script knows Debian's apt-get only; unpack a containerd \
$major so that $folder/usr/bin holds ${programs[*]}"
[ -r "$keys" ] || die "no $keys; install debian-archive-keyring"
own_release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
  awk -v release="$own_release" '$1 == release {print $2; exit}')
[ -n "$mirror" ] || die "apt's sources name no mirror of Debian's release ${own_release:-?}"

# Lists, cache and state of its own: apt on this machine sees nothing of the other release.
rm -rf "$folder.new"
work=$folder.new/apt
trap 'rm -rf "$folder.new"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$work/lists/partial" "$work/archives/partial"
: >"$work/status"
echo "deb [signed-by=$keys] $mirror $release main" >"$work/sources.list"
options=(-q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
  -o "Dir::State=$work" -o "Dir::State::status=$work/status" -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives" -o Acquire::Retries=3
  -o Acquire::Languages=none -o APT::Sandbox::User=)

fetch() {
  apt-get "${options[@]}" update --error-on=any >"$work/log" 2>&1 &&
    (cd "$work" && apt-get "${options[@]}" download containerd >>"$work/log" 2>&1)
}

for attempt in 1 2 3; do
  echo "containerd: fetching $release's from $mirror (attempt $attempt of 3)"
  if fetch; then break; fi
  sed 's/^/containerd: apt-get: /' "$work/log" >&2
  [ "$attempt" -lt 3 ] || die "$mirror did not give containerd of $release; see the lines above"
  sleep $((attempt * 5))
done
dpkg-deb --extract "$work"/containerd_*.deb "$folder.new"
version=$(version_in "$folder.new") ||
  die "containerd of $release is no $major.x that runs on this machine: $(basename "$work"/*.deb)"
rm -rf "$work" "$folder"
mv "$folder.new" "$folder"
echo "containerd: $version is in $folder now; nothing was installed"
