# wait_for.sh - for scripts to source, which have a function fail.
#
# wait_for WHAT COMMAND...: until the command succeeds; fails when it has not in a minute.
wait_for() {
    local what=$1
    shift
    for ((i = 0; i < 1200; i++)); do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.05
    done
    fail "waited in vain for $what"
}
