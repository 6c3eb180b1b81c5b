#!/bin/bash
# deb.sh - make the Debian package build/release/llmd_VERSION_ARCH.deb, and print where it is.
#
# The same commit gives the same bytes with the same compiler: times come from the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/packages.sh deb >&2
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
umask 022
scripts/build.sh release installables -DCMAKE_INSTALL_PREFIX=/usr -DLLMD_FATBINS=ON >&2
cd build/release
rm -f llmd_*.deb
cpack -G DEB >cpack.log 2>&1 || {
    cat cpack.log >&2
    exit 1
}
rm -rf _CPack_Packages
ls "$PWD"/llmd_*.deb
