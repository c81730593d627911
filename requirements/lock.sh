#!/usr/bin/env bash
# Resolve requirements/*.txt anew. usage: lock.sh PATH-TO-UV
set -euo pipefail

cd "$(dirname "$0")/.."
uv="$1"
cutoff="$(date -u -d '7 days ago' +%F)"
resolve() {
  "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-config --no-header --python-version 3.11 --exclude-newer "$cutoff" "$@"
}
# The widest set first; the narrower ones are held to its versions.
resolve requirements/build.in --output-file requirements/build.txt
resolve pyproject.toml --extra node --extra dev --output-file requirements/dev.txt
resolve pyproject.toml --extra node --constraints requirements/dev.txt --output-file requirements/node.txt
resolve pyproject.toml --extra node --extra sim --constraints requirements/dev.txt --output-file requirements/sim.txt
resolve pyproject.toml --constraints requirements/dev.txt --output-file requirements/core.txt
# Tools that ask about the others and share nothing with them.
resolve requirements/audit.in --output-file requirements/audit.txt
if grep -nE 'https?://|--(extra-)?index-url|--find-links' requirements/*.txt; then
  echo "error: a lock names an address" >&2
  exit 1
fi
