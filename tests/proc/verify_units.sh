#!/bin/sh
# verify_units.sh DIR - systemd-analyze accepts the units in DIR without a word: it only warns about an
# unknown directive and exits 0, and an ignored directive is a promise not kept.
command -v systemd-analyze >/dev/null || exit 77
work=$(mktemp -d) || exit 1
trap 'rm -r "$work"' EXIT
for unit in "$1"/*.service "$1"/*.socket; do
    # the programs are not installed here
    sed 's#=/usr/bin/[a-z]*#=/bin/true#' "$unit" >"$work/${unit##*/}" || exit 1
done
out=$(systemd-analyze verify --man=no "$work"/*.service "$work"/*.socket 2>&1) || echo "exit code $?"
[ -z "$out" ] || { echo "$out"; exit 1; }
out=$(systemd-analyze security --offline=true --threshold=50 "$work"/*.service 2>&1) ||
    { echo "$out"; exit 1; }
