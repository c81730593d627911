#!/usr/bin/env bash
# Ask the open vulnerability database about the packages of some locks.
# usage: advisories.sh PATH-TO-PIP-AUDIT LOCK...
# OSV_URL asks another database of that kind, such as a mirror.
# exit: 0 nothing known, 1 something is, 3 nobody could be asked
set -uo pipefail

cd "$(dirname "$0")/.."
auditor="$1"
shift
worst=0
for lock in "$@"; do
  said="$("$auditor" --vulnerability-service osv ${OSV_URL:+--osv-url "$OSV_URL"} --disable-pip --require-hashes --progress-spinner off \
    --requirement "requirements/$lock.txt" 2>&1)"
  code=$?
  if [ "$code" -eq 0 ]; then
    echo "advisories: $lock: none known for $(grep -oE '^[A-Za-z0-9._-]+==' "requirements/$lock.txt" | sort -u | wc -l) packages"
  elif grep -qE 'Connection|connect|resolve|Timeout|ProxyError' <<<"$said"; then
    echo "error: advisories: the database cannot be reached from here; nothing was checked" >&2
    exit 3
  else
    printf '%s\n' "$said" >&2
    worst=1
  fi
done
exit "$worst"
