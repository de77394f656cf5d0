#!/bin/bash
# Runs one case in a container of its own: one-case.sh TREE STAGE FILE NOTES. Its output is evidence; the caller
# decides whether to show it. cases/README.md says what a case may use.
set -Eeu

tree=$1 stage=$2 file=$3 notes=$4
here=$(dirname "$(realpath "$0")")

. "$here/container.sh"
. "$here/checks.sh"

finish() {
    local status=$?
    trap - EXIT ERR
    set +e
    if [ "$status" != 0 ] && [ -n "$container_leader" ]; then
        echo "--- state of the units"
        in_container systemctl --no-pager --lines=0 --full status 'copr-keygen*'
        echo "--- end of the journal"
        in_container journalctl --no-pager --output=short-precise --lines=60 --since="@$booted"
    fi
    container_end
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
trap 'echo "FAILED: $BASH_COMMAND" >&2; trace' ERR

booted=0
container_boot "$tree" "$stage"
booted=$(date +%s.%6N)

# Do what the scripts of a package and the administrator do.
if [ -z "${COPR_KEYGEN_PACKAGED:-}" ]; then
    in_container systemd-sysusers copr-keygen.conf
    in_container systemd-tmpfiles --create copr-keygen.conf
    in_container systemctl --quiet enable --now copr-keygen.socket 2>&1
fi

# shellcheck source=/dev/null
. "$file"
