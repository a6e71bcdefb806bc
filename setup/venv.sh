#!/usr/bin/env bash
# Makes target/venv with the one Python library that the broker's tests compare against.
#
# The version is pinned: a new paho must not change what a test of today says.
set -euo pipefail
cd "$(dirname "$0")/.."

paho=2.1.0
venv=${CARGO_TARGET_DIR:-target}/venv

has_paho() {
  "$venv/bin/python" - "$paho" 2>/dev/null <<'PYTHON'
import importlib.metadata, sys
sys.exit(importlib.metadata.version("paho-mqtt") != sys.argv[1])
PYTHON
}

if has_paho; then
  echo "venv: $venv has paho-mqtt $paho"
  exit 0
fi

# Debian's python3 first: another one on PATH may lack ensurepip or go away.
for python in /usr/bin/python3 python3; do
  command -v "$python" >/dev/null || continue
  rm -rf "$venv"
  if "$python" -m venv "$venv"; then made=$python && break; fi
  echo "venv: $python cannot make one; trying the next" >&2
done
if [ -z "${made:-}" ]; then
  echo "venv: no python3 here makes virtual environments; run setup/packages.sh" >&2
  exit 1
fi
for attempt in 1 2 3; do
  if "$venv/bin/pip" install --quiet --disable-pip-version-check "paho-mqtt==$paho"; then break; fi
  if [ "$attempt" -eq 3 ]; then
    echo "venv: pip could not install paho-mqtt $paho; see the lines above" >&2
    exit 1
  fi
  sleep $((attempt * 5))
done
has_paho
echo "venv: $venv made with $made, paho-mqtt $paho"
