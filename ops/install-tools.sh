#!/usr/bin/env bash
# Install what checks ops/ and builds images/, by Debian package name, when that is possible here.
# Nothing is started: invoke-rc.d leaves services alone in run level 1.
set -euo pipefail

declare -A packages=(
  [promtool]=prometheus
  [systemd-analyze]=systemd
  [mmdebstrap]=mmdebstrap
  [bwrap]=bubblewrap
)
missing=()
for tool in "${!packages[@]}"; do
  command -v "$tool" > /dev/null || missing+=("${packages[$tool]}")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "ops-tools: everything is here"
  exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get > /dev/null; then
  echo "error: missing ${missing[*]} — install these packages (needs root and apt-get)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
apt-get install --yes -qq --no-install-recommends "${missing[@]}" > /dev/null
echo "ops-tools: installed ${missing[*]}"
