# Makes the files that are laid over a Debian tree before it boots. Sourced; the caller sets `root` to the
# repository.
# shellcheck shell=bash disable=SC2154

release=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/release

# stage_installed STAGE: installs there what `make install` installs.
stage_installed() {
    make -C "$root" --no-print-directory install BINARY="$release/copr-keygen" DESTDIR="$1" PREFIX=/usr
}

# stage_clients DIRECTORY: installs the stand-in for obs-signd (signd-client) and the client that asks a signer
# (sign-client).
stage_clients() {
    install -D -t "$1" "$release/examples/signd-client" "$release/examples/sign-client"
}
