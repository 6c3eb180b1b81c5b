#!/bin/sh
# include_rules.sh - who may include whom, and the one door of each outside library.
#
# Run as a test, with the top folder of the sources as its argument.  Prints every #include that breaks
# a rule.  Tests and measurements (tests/, bench/) may include anything.
set -eu
cd "$1"
folders='common proto text supervisor gateway gpu-worker llmctl'
found=$(mktemp)
trap 'rm -f "$found"' EXIT

# includes FOLDER...: every #include of its sources, as FILE:LINE:#include ...
includes() {
    grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.[ch]' --include='*.cu' --include='*.def' "$@" || true
}

# may_include FOLDER OTHER...: besides its own headers it includes those of the others only.
may_include() {
    from=$1
    shift
    for folder in $folders; do
        case " $from $* " in
        *" $folder "*) ;;
        *) includes "$from" | grep -F "\"$folder/" >>"$found" || true ;;
        esac
    done
    # A name without its folder could be any file.
    includes "$from" | grep -E '"[^"/]+"' >>"$found" || true
}

# door HEADER FILE...: headers that begin with HEADER are included in these files or folders only.
door() {
    header=$1
    shift
    includes $folders | grep -E "include[[:space:]]*[<\"]$header" >"$found.door" || true
    for place in "$@"; do
        grep -v "^$place[/:]" "$found.door" >"$found.rest" || true
        mv "$found.rest" "$found.door"
    done
    cat "$found.door" >>"$found"
    rm -f "$found.door"
}

may_include common
may_include proto common
may_include text common
for process in supervisor gateway gpu-worker llmctl; do
    may_include $process common proto text
done

# Inside the worker: only what is behind runtime.h knows the compute half; ops/ knows only the batch.
includes gpu-worker | grep -E '^gpu-worker/[^/]+:' |
    grep -vE '^gpu-worker/(runtime|runtime_inspect|served_model)\.c:|^gpu-worker/served_model\.h:' |
    grep -E '"gpu-worker/((backend|comm|cuda|load|models|ops)/|served_model\.h)' >>"$found" || true
includes gpu-worker/ops | grep -F '"gpu-worker/' | grep -vE '"gpu-worker/(ops/|batch\.h")' >>"$found" || true

door jansson common/json.h
door yaml common/config_file.c
door xxhash common/hash.c
door sodium common/secret.c
door zmq proto/link.c
door protobuf-c proto/frame.h
door systemd/ supervisor
door event2/ gateway/net
door pcre2 text/tokenizer/regex.c
door utf8proc text
door curl/ llmctl/http.c
door cmocka # tests only
# NVIDIA's headers: none.  What is used of its libraries is declared in gpu-worker/cuda/api, and opened at run time.
door 'cu[A-Za-z_]*\.h' # cuda.h, cublasLt.h, ...
door 'cuda_[a-z0-9_]*\.h'
door nccl
door nvml

if [ -s "$found" ]; then
    echo "these includes break a rule (ARCHITECTURE.md, who may include whom):"
    cat "$found"
    exit 1
fi
