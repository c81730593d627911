#!/usr/bin/env bash
# Install what a group of tests uses from Debian, by package name, when that is possible here:
#   ops     checks ops/ and builds images/
#   client  a browser for the observatory page and a SOCKS5 server
#   model   the model checker
#   token   a PKCS#11 token in software
# Nothing is started: invoke-rc.d leaves services alone in run level 1.
set -euo pipefail

declare -A packages
case "${1:-}" in
  ops) packages=([promtool]=prometheus [systemd-analyze]=systemd [mmdebstrap]=mmdebstrap [bwrap]=bubblewrap) ;;
  client) packages=([chromium]=chromium [chromedriver]=chromium-driver [microsocks]=microsocks) ;;
  model) packages=([spin]=spin [gcc]="gcc libc6-dev") ;;
  token) packages=([softhsm2-util]=softhsm2) ;;
  *)
    echo "usage: $0 ops|client|model|token" >&2
    exit 2
    ;;
esac
missing=()
for tool in "${!packages[@]}"; do
  # Unquoted on purpose: one tool may need several packages.
  command -v "$tool" > /dev/null || missing+=(${packages[$tool]})
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "$1-tools: everything is here"
  exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get > /dev/null; then
  echo "error: missing ${missing[*]} — install these packages (needs root and apt-get)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
apt-get install --yes -qq --no-install-recommends "${missing[@]}" > /dev/null
echo "$1-tools: installed ${missing[*]}"
