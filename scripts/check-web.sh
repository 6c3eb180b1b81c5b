#!/bin/bash
# check-web.sh - the web pages of the release build in a headless Chromium; screenshots in build/web-screenshots.
#
# Installs what it needs: Chromium, a font, node with npm where they are not there; and playwright-core and axe-core
# into tests/web/node_modules, at the versions of package-lock.json.  Where they cannot be had it says so and exits 77.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "check-web: skipped: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
}

scripts/packages.sh test
scripts/packages.sh web || skip "its packages cannot be installed"
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[[ -n $CHROMIUM ]] || skip "there is no Chromium"
command -v npm >/dev/null || skip "there is no npm"
# npm, or its registry, may have come since the last build.
[[ -f build/release/web/dist/assets/chat.js ]] || rm -f build/release/web/stamp
scripts/build.sh release programs -DLLMD_WEB=AUTO
[[ -f build/release/web/dist/assets/chat.js ]] || skip "npm cannot get the packages of the pages (build/release/web/npm.log)"
for program in serve_told bench-make-gguf; do
    scripts/build.sh release "$program"
done
cd tests/web
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund >/dev/null || skip "npm cannot get the packages of the tests"
    cp package-lock.json node_modules/.installed
fi
export CHROMIUM
exec node --test-reporter=./reporter.mjs all.mjs
