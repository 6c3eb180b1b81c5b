#!/bin/bash
# test_kubernetes.sh BIN SOURCES - deploy/kubernetes: valid for Kubernetes, and true of this server.
#
# If this breaks, `kubectl apply` refuses the objects or, worse, takes them and ignores a misspelt field; or a probe asks
# for a path that is not there and all pods are killed for it.
#
# Exit code 77: no kubectl with components (kustomize 3.7 or later), or no node and npm.
set -Eeuo pipefail
bin=$1 sources=$2
skip() { echo "skipped: $*"; exit 77; }
for program in kubectl node npm curl; do
    command -v "$program" >/dev/null || skip "'$program' is not installed"
done
work=$(mktemp -d "${TMPDIR:-/tmp}/llmd-kubernetes-XXXXXX")
llmd=
finish() {
    local code=$?
    trap - EXIT
    if [[ $code -ne 0 && $code -ne 77 ]]; then tail -n 20 "$work"/*.log >&2 || true; fi
    [[ -z $llmd ]] || kill "$llmd" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

overlays=(demo cpu gpu)
for overlay in "${overlays[@]}"; do
    kubectl kustomize "$sources/deploy/kubernetes/overlays/$overlay" >"$work/$overlay.yaml" 2>"$work/kustomize.log" || {
        ! grep -q 'unknown field "components"\|invalid Kustomization' "$work/kustomize.log" || skip "kubectl is too old"
        exit 1
    }
done

files=("${overlays[@]/#/$work/}")
files=("${files[@]/%/.yaml}")
cd "$sources/tests/deploy/kubernetes"
if [[ ! -d node_modules ]]; then
    npm ci --no-audit --no-fund >"$work/npm.log" 2>&1 || { cat "$work/npm.log"; skip "the npm packages cannot be had"; }
fi
node check.mjs "$sources" "${files[@]}" 2>&1 || exit 1

echo "[ RUN      ] a_server_with_these_settings_answers_every_probe"
set -a
# shellcheck disable=SC1091
. "$sources/deploy/kubernetes/base/settings.env"
set +a
LLMD_DRAIN_LEAD_S=0 "$bin/llmd" --model "$sources/models/stories-demo" --host 127.0.0.1 --port 0 \
    --runtime-dir "$work/run" 2>"$work/llmd.log" &
llmd=$!
"$bin/llmctl" --runtime-dir "$work/run" wait --timeout 60 >/dev/null
address=$(sed -n 's/.*listen[="\\: ]*\(127[0-9.:]*\).*/\1/p' "$work/llmd.log" | head -1)
mapfile -t paths < <(sed -n 's/^ *path: \(\/health.*\)$/\1/p' "$work/demo.yaml")
[[ ${#paths[@]} -eq 3 ]]
for path in "${paths[@]}"; do curl -fsS -o "$work/answer" "$address$path"; done
kill "$llmd"
wait "$llmd"
llmd=
echo "[       OK ] a_server_with_these_settings_answers_every_probe"
