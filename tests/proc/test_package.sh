#!/bin/bash
# test_package.sh DEB ROOT README - the Debian package in a bare Debian (clean-root.sh ROOT) under a real systemd (sdbox.sh).
#
# If this breaks, an operator installs the package and has no service; or loses streams by an upgrade, cannot find
# a request in the journal, or keeps files of something that was removed.  Steps build upon each other and are
# printed as cmocka prints tests; the last line is the count.
#
# Exit code 77: not root, or no namespaces here.
set -eu
deb=$1 root=$2 readme=$3
here=$(cd "$(dirname "$0")" && pwd)
box=$(mktemp -d "${TMPDIR:-/tmp}/llmd-package-XXXXXX")
url=http://127.0.0.1:8080
n_passed=0 n_failed=0

finish() {
    local code=$?
    trap - EXIT
    "$here/sdbox.sh" stop "$box" || true
    rm -rf "$box"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

inside() {
    "$here/sdbox.sh" run "$box" "$@"
}

# send SIGNAL PID: a bare Debian has kill only in its shell.
send() {
    inside sh -c "kill -$1 $2"
}

# This host's curl, for a bare Debian has none.
ask() {
    "$here/sdbox.sh" net "$box" curl -sS --max-time 60 "$@"
}

fail() {
    echo "FAILED: $*" >&2
    return 1
}

. "$here/../wait_for.sh"

# A test is a function, run in a subshell in which the first command that fails ends it.
run() {
    local code=0
    echo "[ RUN      ] $1"
    set +e
    (
        set -e
        "$1"
    )
    code=$?
    set -e
    if [[ $code -eq 0 ]]; then
        echo "[       OK ] $1"
        n_passed=$((n_passed + 1))
    else
        echo "[  FAILED  ] $1"
        n_failed=$((n_failed + 1))
        inside journalctl --no-pager -u llmd -n 30 >&2 || true
    fi
}

# ---- what is looked at

property() {
    inside systemctl show "$1" -p "$2" --value
}

is_active() {
    [[ $(property "$1" ActiveState) == active ]]
}

# Pid, inside the box, of a process as llmctl names it; nothing when it is not ready.
pid_of() {
    inside llmctl status --json 2>/dev/null |
        sed -n "s/.*\"name\":\"$1\",\"state\":\"ready\",\"pid\":\([0-9]*\),.*/\1/p"
}

has_other_pid() {
    local now
    now=$(pid_of "$1")
    [[ -n $now && $now != "$2" ]]
}

has_other_main() {
    local now
    now=$(property llmd MainPID)
    [[ $now != 0 && $now != "$1" && $(inside llmctl status --json) == *'"state":"ready","uptime_ns"'* ]]
}

# Pids of ours inside the box.
processes() {
    # shellcheck disable=SC2016 # expanded inside
    inside sh -c 'for p in /proc/[0-9]*; do
        case $(cat "$p/comm" 2>/dev/null) in llmd | llm-*) echo "${p#/proc/}" ;; esac
    done'
}

is_healthy() {
    [[ $(ask -o /dev/null -w '%{http_code}' "${1:-$url}/health") == 200 ]]
}

generate() { # URL [CURL OPTION...]
    local at=$1
    shift
    ask "$at/generate" -H 'Content-Type: application/json' "$@" \
        -d '{"inputs":"Once upon a time","parameters":{"max_new_tokens":60,"do_sample":true,"seed":1}}'
}

tells_a_story() {
    [[ $(generate "${1:-$url}") == '{"generated_text":'*' '* ]]
}

# An undisturbed run of it is in $box/want.
stream() {
    ask -N "$url/generate_stream" -H 'Content-Type: application/json' \
        -d '{"inputs":"Once upon a time","parameters":{"max_new_tokens":400,"do_sample":true,"seed":3}}'
}

# while_it_streams COMMAND...: run it in the middle of an answer, which must come whole all the same.  The
# worker stands still until the command begins.
while_it_streams() {
    local client worker
    [[ -s $box/want ]] || stream >"$box/want"
    worker=$(pid_of 'worker 0.0')
    stream >"$box/got" &
    client=$!
    wait_for 'the stream' grep -q token "$box/got"
    send STOP "$worker"
    "$@" &
    sleep 0.02
    send CONT "$worker" 2>/dev/null || true # it may be what is killed
    wait $! || fail "$*"
    wait "$client" || fail 'the stream was cut off'
    cmp "$box/want" "$box/got"
}

# Everything but what dpkg, the journal and the kernel keep of everything.
list_files() {
    inside find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
        -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/systemd -o -path /var/lib/apt \) -prune \
        -o -print | grep -v -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' -e '^/etc/.pwd.lock$' |
        sort
}

list_users() {
    inside cat /etc/passwd /etc/group /etc/shadow /etc/gshadow | sort
}

# ---- the tests

installed_it_is_a_running_service() {
    inside dpkg -i /root/llmd.deb
    [[ $(inside systemctl is-enabled llmd.service llmd.socket) == $'enabled\nenabled' ]]
    is_active llmd.service
    is_active llmd.socket
    is_healthy
    tells_a_story
    [[ $(inside llmctl status --json) == *'"state":"ready"'* ]]
}

it_runs_as_its_own_user_in_its_sandbox() {
    local pid status
    for pid in $(processes); do
        status=$(inside cat "/proc/$pid/status")
        [[ $(inside stat -c %U "/proc/$pid") == llmd ]]
        grep -q $'^CapBnd:\t0000000000000000$' <<<"$status"
        grep -q $'^NoNewPrivs:\t1$' <<<"$status"
        grep -q $'^Seccomp:\t2$' <<<"$status"
        ! grep -q 'rwxp' <<<"$(inside cat "/proc/$pid/maps")" || fail "process $pid has memory that is rwx"
    done
    [[ -n $pid ]]
    ! inside journalctl -b --no-pager -o cat _PID=1 UNIT=llmd.service | grep -i 'device' ||
        fail 'systemd has something to say of devices'
    [[ $(inside stat -c '%U %a' /run/llmd) == 'llmd 1750' || $(inside stat -c '%U %a' /run/llmd) == 'llmd 750' ]]
}

a_killed_process_is_replaced_under_a_stream() {
    local llmd worker gateway
    llmd=$(property llmd MainPID) worker=$(pid_of 'worker 0.0') gateway=$(pid_of gateway)
    while_it_streams send KILL "$worker"
    wait_for 'another worker' has_other_pid 'worker 0.0' "$worker"
    while_it_streams send KILL "$gateway"
    wait_for 'another gateway' has_other_pid gateway "$gateway"
    gateway=$(pid_of gateway)
    while_it_streams send KILL "$llmd"
    wait_for 'another llmd' has_other_main "$llmd"
    [[ $(property llmd NRestarts) == 1 ]]
    [[ $(pid_of gateway) == "$gateway" ]] || fail 'the gateway was started again'
}

a_hung_llmd_is_found_by_the_watchdog() {
    local llmd gateway
    llmd=$(property llmd MainPID) gateway=$(pid_of gateway)
    send STOP "$llmd"
    wait_for 'another llmd' has_other_main "$llmd"
    [[ $(inside journalctl -u llmd -o cat) == *'Watchdog timeout'* ]]
    [[ $(pid_of gateway) == "$gateway" ]] || fail 'the gateway was started again'
}

a_connection_starts_the_stopped_service() {
    inside systemctl stop llmd.service
    [[ -z $(processes) ]]
    tells_a_story
    is_active llmd.service
}

who_asks_during_a_restart_waits() {
    local code=0 client
    for ((i = 0; i < 20; i++)); do generate "$url" -f >/dev/null || exit 1; done &
    client=$!
    inside systemctl restart llmd.service
    wait "$client" || code=$?
    [[ $code -eq 0 ]] || fail 'a request was refused'
}

reload_takes_settings_over_or_says_what_is_wrong() {
    inside sed -i '$ a log_level: debug' /etc/llmd/llmd.yaml
    inside systemctl reload llmd
    [[ $(inside llmctl config) == *log_level*debug* ]]
    inside sed -i 's/^log_level: .*/log_level: loud/' /etc/llmd/llmd.yaml
    ! inside systemctl reload llmd 2>/dev/null || fail 'wrong settings were taken'
    inside sed -i 's/^log_level: .*/log_level: info/' /etc/llmd/llmd.yaml
    inside systemctl reload llmd
    is_healthy
}

the_journal_finds_a_request_by_its_id() {
    local headers found
    headers=$(generate "$url" -H 'X-Request-Id: find.me-7' -D - -o /dev/null)
    grep -qi '^x-request-id: find.me-7' <<<"$headers"
    inside journalctl --sync
    found=$(inside journalctl -o json LLMD_REQUEST_ID=find.me-7)
    grep -q '"LLMD_PROCESS":"llm-gateway"' <<<"$found"
    grep -q '"LLMD_PROCESS":"llm-worker/0.0"' <<<"$found"
    grep -q '"LLMD_RANK":"0"' <<<"$found"
    grep -q '"_SYSTEMD_UNIT":"llmd.service"' <<<"$found"
    grep -q '"PRIORITY":"6"' <<<"$found"
    grep -q '"CODE_FILE":"[^"]*gateway/exchange[a-z_]*.c"' <<<"$found"
    # one that is made up is in the answer's head and in the journal too
    headers=$(generate "$url" -D - -o /dev/null | tr -d '\r')
    found=$(sed -n 's/^[Xx]-[Rr]equest-[Ii]d: //p' <<<"$headers")
    [[ ${#found} -eq 32 ]]
    inside journalctl --sync
    [[ $(inside journalctl -o cat "LLMD_REQUEST_ID=$found") == *tokens=60* ]]
}

no_text_of_a_client_is_logged_unless_it_is_asked_for() {
    ! inside journalctl -o json --no-pager | grep -q 'Once upon' || fail 'there is'
    inside sed -i '$ a log_prompts: "on"' /etc/llmd/llmd.yaml
    inside systemctl reload llmd
    generate "$url" -H 'X-Request-Id: shown' >/dev/null
    inside journalctl --sync
    [[ $(inside journalctl -o cat LLMD_REQUEST_ID=shown) == *'text="Once upon a time"'* ]]
    inside sed -i '/^log_prompts/d' /etc/llmd/llmd.yaml
    inside systemctl reload llmd
}

another_model_is_served_inside_the_sandbox() {
    inside cp -r /usr/share/llmd/stories-demo /srv/other
    inside llmctl reload --model /srv/other
    [[ $(ask "$url/v1/models") == *'"other"'* ]]
    tells_a_story
    inside systemctl restart llmd
    inside rm -r /srv/other
}

two_instances_serve_beside_it() {
    local name port=8081
    for name in one two; do
        printf 'model: /usr/share/llmd/stories-demo\nport: %s\n' "$port" |
            inside tee "/etc/llmd/$name.yaml" >/dev/null
        inside systemctl enable --now "llmd@$name"
        tells_a_story "http://127.0.0.1:$port"
        [[ $(inside llmctl --runtime-dir "/run/llmd-$name" status --json) == *'"state":"ready"'* ]]
        port=$((port + 1))
    done
    inside systemctl reload llmd@two
    inside systemctl stop llmd@one
    ! is_healthy http://127.0.0.1:8081 2>/dev/null || fail 'one is still there'
    is_healthy http://127.0.0.1:8082
    is_healthy
}

an_upgrade_cuts_no_stream() {
    local llmd gateway client
    llmd=$(property llmd MainPID) gateway=$(pid_of gateway)
    : >"$box/go"
    while [[ -e $box/go ]]; do stream | cmp "$box/want" - || exit 1; done &
    client=$!
    inside dpkg -i /root/llmd.deb
    rm "$box/go"
    wait "$client" || fail 'a stream was cut off'
    [[ $(property llmd MainPID) == "$llmd" ]] || fail 'llmd was restarted'
    wait_for 'another gateway' has_other_pid gateway "$gateway"
    is_healthy http://127.0.0.1:8082
}

# Settings stay, as Debian has it; the service does not.
removed_nothing_runs() {
    inside dpkg --remove llmd
    [[ -z $(processes) ]]
    ! is_healthy 2>/dev/null || fail 'somebody answers'
    inside test -e /etc/llmd/llmd.yaml
}

purged_nothing_is_left() {
    inside dpkg --purge llmd
    list_files >"$box/files.after"
    list_users >"$box/users.after"
    diff "$box/files.before" "$box/files.after"
    diff "$box/users.before" "$box/users.after"
    [[ $(inside systemctl list-unit-files --no-legend 'llmd*') == '' ]]
    [[ $(inside systemctl list-units --all --no-legend 'llmd*') == '' ]]
    inside test ! -e /run/llmd
}

# Each command of the section, as a newcomer pastes it; the checkout is /root there.
the_words_of_the_readme_are_enough() {
    local commands
    commands=$(sed -n '/^## As a systemd service/,/^## Models/s/^    //p' "$readme")
    [[ $(wc -l <<<"$commands") -ge 10 ]]
    inside sh -exc "cd /root
$commands" >"$box/said" 2>&1 || { cat "$box/said" && return 1; }
    grep -q 'Active: active (running)' "$box/said"
    grep -q '^{"generated_text":' "$box/said"
    grep -q 'llm-worker/0.0.*request_id=mine-1' "$box/said"
    list_files | diff "$box/files.before" -
}

# ---- the box

mkdir -p "$box/stage/root/build/release" "$box/stage/etc/systemd/system/llmd.service.d"
cp "$deb" "$box/stage/root/build/release/"
ln -s "build/release/${deb##*/}" "$box/stage/root/llmd.deb"
printf '[Service]\nWatchdogSec=3s\n' >"$box/stage/etc/systemd/system/llmd.service.d/test.conf"
chmod -R a+rX "$box"
"$here/sdbox.sh" start "$box" "$box/stage" "$root" || exit $?
list_files | grep -v '^/etc/systemd/system/llmd.service.d' >"$box/files.before"
list_users >"$box/users.before"

run installed_it_is_a_running_service
run it_runs_as_its_own_user_in_its_sandbox
run a_killed_process_is_replaced_under_a_stream
run a_hung_llmd_is_found_by_the_watchdog
run a_connection_starts_the_stopped_service
run who_asks_during_a_restart_waits
run reload_takes_settings_over_or_says_what_is_wrong
run the_journal_finds_a_request_by_its_id
run no_text_of_a_client_is_logged_unless_it_is_asked_for
run another_model_is_served_inside_the_sandbox
run two_instances_serve_beside_it
run an_upgrade_cuts_no_stream
run removed_nothing_runs
run purged_nothing_is_left
run the_words_of_the_readme_are_enough
echo "$n_passed passed, $n_failed failed"
[[ $n_failed -eq 0 ]]
