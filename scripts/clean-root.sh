#!/bin/bash
# clean-root.sh FOLDER PACKAGE... - a bare Debian of the release that this machine has, with these packages.
#
# From the sources that apt has here, with its settings.  A FOLDER that was made for the same packages is kept.
# Exit code 77: not root, no mmdebstrap, or no packages can be had.
set -euo pipefail

folder=$1
shift
for_what="$*"
[[ $(cat "$folder.for" 2>/dev/null) != "$for_what" ]] || exit 0

cannot() {
    echo "clean-root: $1" >&2
    exit 77
}

[[ $(id -u) -eq 0 ]] || cannot 'not root'
command -v mmdebstrap >/dev/null || cannot 'no mmdebstrap here'
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' | sort -u)
[[ -n $release && -n $sources ]] || cannot 'apt knows no sources of Debian here'

options=()
while read -r line; do # how this machine reaches them
    options+=(--aptopt="$line")
done < <(apt-config dump | grep -iE '^Acquire::https?::Proxy[ :]' || true)

rm -rf "$folder" "$folder.for"
# what nobody reads in a test is left out; nor must its files reach the disk
if ! mmdebstrap --quiet --mode=root --variant=minbase --include="$(IFS=, && echo "$*")" \
    "${options[@]}" --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    "$release" "$folder" - <<<"$sources" >"$folder.log" 2>&1; then
    tail -5 "$folder.log" >&2
    rm -rf "$folder"
    cannot 'it could not be made'
fi
rm -f "$folder.log" "$folder/etc/dpkg/dpkg.cfg.d/99mmdebstrap" # what is installed later has its pages
echo "$for_what" >"$folder.for"
