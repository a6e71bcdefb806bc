#!/usr/bin/env bash
# Installs the cargo subcommands that the checks use, built from source, only where missing.
#
#   setup/tools.sh nextest        what `make test` needs
#   setup/tools.sh nextest deny   what `.ci/run` needs
#
# A tool that is already here is taken as it is if it is at least the version named below.
set -euo pipefail

# Newer nextest releases want a newer compiler than rust-toolchain.toml names.
declare -A pinned=([nextest]=0.9.143 [deny]=0.20.2)

for tool in "$@"; do
  version=${pinned[$tool]:?"tools: knows nextest and deny, not $tool"}
  have=$(cargo "$tool" --version 2>/dev/null | awk 'NR==1 {print $2}') || have=
  oldest=$(printf '%s\n%s\n' "$version" "${have:-0}" | sort -V | head -1)
  if [ "$oldest" = "$version" ]; then
    echo "tools: cargo-$tool $have is here"
    continue
  fi
  echo "tools: building cargo-$tool $version, this takes some minutes${have:+ (found $have)}"
  cargo install --locked "cargo-$tool" --version "$version"
done
