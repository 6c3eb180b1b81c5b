#!/bin/sh
# test_completion.sh - `llmctl completion` for each shell: parses there, and offers what the command takes.
#
#   test_completion.sh LLMCTL
#
# What would break in production: a script that stops a login shell with a syntax error, or offers what llmctl
# refuses.  A shell that is not installed is told as skipped; bash always is.
set -eu
llmctl=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

fail() {
    echo "FAILED $*"
    failed=1
}

for shell in bash zsh fish; do
    "$llmctl" completion $shell >"$dir/$shell"
done
if "$llmctl" completion tcsh 2>/dev/null; then fail "tcsh has no script"; fi

# offers WORDS... -- EXPECTED...: what bash offers for the last of WORDS.
offers() {
    bash -c '
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _llmctl
        printf "%s\n" "${COMPREPLY[@]}"' bash "$dir/bash" "$@"
}
expect() {
    wanted=$1
    shift
    offers "$@" | grep -qx -- "$wanted" || fail "bash: '$*' does not offer '$wanted'"
}
bash -n "$dir/bash" || fail "bash does not parse it"
expect status llmctl ''
expect drain llmctl -R /run/x dr
expect --json llmctl status --j
expect gateway llmctl restart g
expect --sort llmctl requests --s
expect age llmctl requests --sort ''
expect age llmctl requests --sort = a
expect tgi llmctl bench --api t
expect verify llmctl model ''
expect "$dir/fish" llmctl model inspect "$dir/f"
expect --ignore-eos llmctl bench --i
[ -z "$(offers llmctl bench --api x)" ] || fail "bash offers what --api does not take"
[ -z "$(offers llmctl drain --js)" ] || fail "bash offers --json to drain"

# Every long option that --help of a command names is offered, and no other.
for command in $("$llmctl" --help | sed -n 's/^  \([a-z-]*\) .*/\1/p'); do
    case $command in -*) continue ;; esac
    "$llmctl" "$command" --help | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+' |
        grep -vE -- '--(usage|version)' | sort -u >"$dir/help"
    offers llmctl "$command" -- | sort -u >"$dir/offered"
    diff "$dir/help" "$dir/offered" || fail "bash: the options of '$command' are not those of its --help"
done

if command -v zsh >/dev/null; then
    zsh -n "$dir/zsh" || fail "zsh does not parse it"
    zsh -fc 'autoload -U compinit; compinit -D -u; source $1; (( ${+_comps[llmctl]} ))' zsh "$dir/zsh" ||
        fail "zsh does not take it"
else
    echo "skipped: zsh is not installed"
fi
if command -v fish >/dev/null; then
    fish --no-execute "$dir/fish" || fail "fish does not parse it"
    HOME=$dir fish -c 'source $argv[1]; complete -C "llmctl stat"' "$dir/fish" | grep -q '^status' ||
        fail "fish does not offer status"
    HOME=$dir fish -c 'source $argv[1]; complete -C "llmctl bench --api "' "$dir/fish" | grep -q '^tgi' ||
        fail "fish does not offer tgi"
    HOME=$dir fish -c 'source $argv[1]; complete -C "llmctl status --j"' "$dir/fish" | grep -q '^--json' ||
        fail "fish does not offer --json"
else
    echo "skipped: fish is not installed"
fi
exit $failed
