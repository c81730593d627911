#!/usr/bin/env bash
# Install what the clients' tests use from Debian, by package name, when that is possible here:
# a browser for the observatory page and a SOCKS5 server.
set -euo pipefail

declare -A packages=(
  [chromium]=chromium
  [chromedriver]=chromium-driver
  [microsocks]=microsocks
)
missing=()
for tool in "${!packages[@]}"; do
  command -v "$tool" > /dev/null || missing+=("${packages[$tool]}")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "client-tools: everything is here"
  exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get > /dev/null; then
  echo "error: missing ${missing[*]} — install these packages (needs root and apt-get)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
apt-get install --yes -qq --no-install-recommends "${missing[@]}" > /dev/null
echo "client-tools: installed ${missing[*]}"
