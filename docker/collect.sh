#!/bin/bash
# collect.sh PROGRAMS MODEL ROOTFS - make the root of the small images.
#
# Takes from the Debian it runs in: the loader and the libraries that the programs in folder PROGRAMS, curl and
# dash name (ldd follows them all; none of them loads anything by name at run time), the licences of their
# packages, and dpkg's records of them, file by file as scanners of images read them.  No package manager, no
# locale, no time zones, no certificates: nothing here speaks TLS.
set -euo pipefail
export LC_ALL=C

programs=$1 model=$2 root=$3
tools=(/usr/bin/curl /usr/bin/dash)

make_folders() {
    local name
    mkdir -p "$root"/{dev,etc,proc,sys,usr/bin,usr/share/doc/llmd,var/lib/dpkg/status.d}
    for name in bin lib lib64; do
        mkdir -p "$root/usr/$name"
        ln -s "usr/$name" "$root/$name"
    done
    ln -s bin "$root/usr/sbin"
    ln -s usr/sbin "$root/sbin"
    ln -s ../run "$root/var/run"
    # any user may be told to run it; tmpfs belongs over the first two where the root is read-only
    install -d -m 1777 "$root"/{run,tmp,home/datascience,var/cache/llmd}
    ln -s ../tmp "$root/var/tmp"
}

make_users() {
    printf 'root:x:0:0:root:/:/bin/sh\nllmd:x:65532:65532:llmd:/home/datascience:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nllmd:x:65532:\n' >"$root/etc/group"
}

# The paths that ldd names, the loader's among them.
libraries_of() {
    ldd "$@" | grep -o '/[^ ]*\.so[^ ]*' | sort -u
}

# /lib/x and /usr/lib/x are one place; dpkg may know it by either name.
owner_of() {
    local path=$1
    { dpkg-query -S "/usr$path" || dpkg-query -S "$path" || dpkg-query -S "$(realpath "$path")" ||
        dpkg-query -S "${path#/usr}"; } 2>/dev/null | head -1 | cut -d: -f1
}

# The file itself, under the name that the loader looks for.
copy_file() {
    install -D -m 755 "$(realpath "$1")" "$root$(realpath "$(dirname "$1")")/${1##*/}"
}

record_package() {
    local package=$1
    dpkg-query -s "$package" | grep -v '^Conffiles:\|^ /' >"$root/var/lib/dpkg/status.d/$package"
    [[ ! -f /usr/share/doc/$package/copyright ]] || {
        printf '\n==== %s ====\n\n' "$package"
        cat "/usr/share/doc/$package/copyright"
    }
}

mkdir -p "$root"
make_folders
make_users
install -m 755 "$programs"/* "$root/usr/bin/"
mapfile -t files < <(libraries_of "$programs"/* "${tools[@]}")
files+=("${tools[@]}")
for file in "${files[@]}"; do
    copy_file "$file"
done
ln -s dash "$root/usr/bin/sh"
for file in "${files[@]}"; do
    owner_of "$file"
done | sort -u | while read -r package; do
    record_package "$package"
done | gzip -9n >"$root/usr/share/doc/llmd/licences-of-libraries.gz"

# Where OCI mounts a deployment's model, which then hides it.
install -d "$root/opt/ds/model/deployed_model"
for file in config.json generation_config.json model.safetensors special_tokens_map.json tokenizer.json \
    tokenizer_config.json MODEL_CARD.md; do
    install -m 644 "$model/$file" "$root/opt/ds/model/deployed_model/$file"
done
