# Debian root trees to boot from. Each is made once, kept, and never written to afterwards. Sourced.
# shellcheck shell=bash

tree_packages=systemd,systemd-sysv,dbus,gnupg,gpg-agent,curl,procps,iproute2

# tree_ready DIRECTORY NAME [SUITE PACKAGES]: makes sure that DIRECTORY/NAME is a complete tree of the suite NAME,
# or of SUITE with additional packages. Remove a tree to have it made again with the newest packages.
tree_ready() {
    local tree=$1/$2 unfinished=$1/$2.unfinished suite=${3-$2}
    if tree_is_complete "$tree"; then
        return
    fi
    echo "making the root tree $2 of Debian (once)" >&2
    mkdir -p "$1" && rm -rf --one-file-system "$tree" "$unfinished" || return
    # The package index of a testing suite is valid for a week, and a mirror may be behind. A tree is kept for
    # longer anyway.
    if ! mmdebstrap --quiet --aptopt='Acquire::Retries "5"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --mode=root --variant=minbase \
        --include="$tree_packages${4:+,$4}" "$suite" "$unfinished" >&2; then
        rm -rf --one-file-system "$unfinished"
        return 1
    fi
    mv "$unfinished" "$tree"
}

# A tree is moved into place only when it is complete. This checks that it has the programs that the cases use.
tree_is_complete() {
    local program
    for program in lib/systemd/systemd bin/curl bin/dbus-daemon bin/gpg bin/gpg-agent bin/pgrep bin/ss; do
        [ -x "$1/usr/$program" ] || return
    done
}
