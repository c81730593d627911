#!/usr/bin/env bash
# Print the first interpreter that runs and is at least 3.11: the one asked for, else the oldest
# supported, which is what the locks are resolved for.
set -euo pipefail

wanted="${1:-}"
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

if [[ -n "$wanted" ]]; then
  candidates=("$wanted")
else
  candidates=(python3.11 python3.12 python3.13 python3 python)
fi
for candidate in "${candidates[@]}"; do
  # A name on PATH may be a version manager's shim without a version behind it: run it to know.
  if command -v "$candidate" > /dev/null && "$candidate" -c "$new_enough" > /dev/null 2>&1; then
    command -v "$candidate"
    exit 0
  fi
done
echo "error: no Python >= 3.11 among: ${candidates[*]} — install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
