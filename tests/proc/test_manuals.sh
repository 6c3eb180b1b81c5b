#!/bin/sh
# test_manuals.sh - the manual pages: one for each program, complete, and without a word from the linters.
#
#   test_manuals.sh MAN_DIR BIN_DIR
#
# What would break in production: a page that man(1) shows as a jumble, or that does not know an option.
set -eu
man=$1
bin=$2
failed=0
fail() {
    echo "FAILED $*"
    failed=1
}

for page in llmctl.1 llmd.yaml.5 llmd.8 llm-gateway.8 llm-worker.8 llm-init.8; do
    [ -s "$man/$page" ] || fail "$page is missing"
    if grep -n '^@' "$man/$page"; then fail "$page: a list was not filled in"; fi
    if command -v mandoc >/dev/null; then
        # Our own pages are not installed here.
        found=$(mandoc -T lint -W style "$man/$page" | grep -v 'referenced manual not found: Xr llm' || true)
        [ -z "$found" ] || fail "mandoc: $found"
    fi
    if command -v man >/dev/null; then
        found=$(LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -l "$man/$page" 2>&1 >/dev/null || true)
        [ -z "$found" ] || fail "man --warnings $page: $found"
    fi
done
command -v mandoc >/dev/null || echo "skipped: mandoc is not installed"
command -v man >/dev/null || echo "skipped: man is not installed"

# The pages' sources with hyphens as they were.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for page in llmctl.1 llmd.yaml.5 llmd.8 llm-init.8; do
    sed 's/\\-/-/g' "$man/$page" >"$dir/$page"
done
for command in $("$bin/llmctl" --help | sed -n 's/^  \([a-z][a-z-]*\)\( .*\)\{0,1\}$/\1/p'); do
    grep -q "^\.It Cm $command " "$dir/llmctl.1" || fail "llmctl.1 does not know '$command'"
done
for option in $("$bin/llmd" --help | grep -oE '^  (-., |    )--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+'); do
    case $option in --usage) continue ;; esac
    grep -qE "^\.It (Fl . , )?Fl Fl ${option#--}( |\$)" "$dir/llmd.8" || fail "llmd.8 does not know '$option'"
    case $option in --config | --help | --version | --layouts | --gateway-last) continue ;; esac
    grep -qx "\.It Ic $(echo "${option#--}" | tr - _)" "$dir/llmd.yaml.5" ||
        fail "llmd.yaml.5 does not know '$option'"
done
for option in $("$bin/llm-init" --help | grep -oE -- '--[a-z-]+=' | tr -d '='); do
    grep -q "Fl Fl ${option#--} " "$dir/llm-init.8" || fail "llm-init.8 does not know '$option'"
done
exit $failed
