#!/usr/bin/env bash
# Install the model checker of `make model`, by Debian package name, when that is possible here.
set -euo pipefail

missing=()
command -v spin > /dev/null || missing+=(spin)
command -v gcc > /dev/null || missing+=(gcc libc6-dev)
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "model-tools: everything is here"
  exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get > /dev/null; then
  echo "model-tools: missing ${missing[*]} — install these packages (needs root and apt-get)" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install --yes -qq --no-install-recommends "${missing[@]}" > /dev/null
echo "model-tools: installed ${missing[*]}"
