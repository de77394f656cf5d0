# Functions that the tests of packages share. They lay packages over Debian trees and boot the result. Sourced.
# shellcheck shell=bash

packages_here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
root=$(realpath "$packages_here/../..")
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
trees=${COPR_KEYGEN_TREES:-$root/target/system-trees}

. "$root/tests/stage.sh"
. "$root/tests/system/trees.sh"

cannot_run() {
    echo "$0: cannot run: $*" >&2
    exit 2
}

# fail TEXT...: ends the test.
fail() {
    echo "not ok - $*" >&2
    exit 1
}

# passed TEXT...
passed() {
    echo "ok - $*"
}

# expect WHAT WANTED GOT
expect() {
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}

# in_private_mounts ARGUMENTS...: runs this script again in a mount namespace, with $work on a tmpfs. Everything
# that the script mounts and writes there disappears with the namespace.
in_private_mounts() {
    [ -z "${work:-}" ] || return 0
    [ "$(id -u)" = 0 ] || cannot_run "it mounts, and boots containers: it needs root"
    work=$(mktemp -d "${TMPDIR:-/tmp}/copr-keygen-packages.XXXXXX")
    export work
    local status=0
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --propagation private sh -euc 'mount -t tmpfs -o mode=0755 tmpfs "$work" && exec "$@"' sh \
        "$(realpath "$0")" "$@" || status=$?
    rmdir "$work"
    exit "$status"
}

# on_target TREE LAYER SHARE COMMAND...: runs a command in TREE. /target there is the same tree with LAYER over
# it, and everything that is written to /target stays in LAYER. /mnt is SHARE, and /source is this repository.
on_target() {
    mkdir -p "$2" "$2.scratch" "$2.root" "$2.tools" "$3"
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --propagation private --pid --fork --kill-child sh -euc '
        tree=$1 layer=$2 share=$3 source=$4
        shift 4
        mount -t overlay -o "lowerdir=$tree,upperdir=$layer,workdir=$layer.scratch" overlay "$layer.root"
        mount -t tmpfs -o mode=0755 tmpfs "$layer.tools"
        cd "$layer.tools"
        mkdir upper scratch root
        mount -t overlay -o "lowerdir=$tree,upperdir=upper,workdir=scratch" overlay root
        for each in root "$layer.root"; do
            mount -t proc proc "$each/proc"
            mount --rbind /dev "$each/dev"
        done
        mkdir root/target root/source
        mount --rbind "$layer.root" root/target
        mount --bind "$share" root/mnt
        mount --bind -o ro "$source" root/source
        exec chroot root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
    ' sh "$(realpath "$1")" "$2" "$3" "$root" "${@:4}"
}

# system_cases SUITE TREE LAYER [CASE...]: boots TREE with LAYER over it for each case. Without CASE, all cases of
# tests/system are run.
system_cases() {
    local suite=$1 tree=$2 layer=$3
    shift 3
    stage_clients "$layer/usr/lib/copr-keygen-test"
    mkdir -p "$work/trees"
    ln -sfT "$(realpath "$tree")" "$work/trees/$suite"
    COPR_KEYGEN_TREES=$work/trees COPR_KEYGEN_STAGE=$layer COPR_KEYGEN_PACKAGED=yes \
        "$root/tests/system/run" "$suite" "$@"
}
