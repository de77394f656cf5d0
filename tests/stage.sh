# What is laid over a tree of Debian before it boots. Sourced; the caller has set `root`, where the repository is.
# shellcheck shell=bash disable=SC2154

release=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/release

# stage_installed STAGE: what `make install` installs.
stage_installed() {
    make -C "$root" --no-print-directory install BINARY="$release/copr-keygen" DESTDIR="$1" PREFIX=/usr
}

# stage_clients DIRECTORY: the stand-in for obs-signd, and its client.
stage_clients() {
    install -D -t "$1" "$release/examples/signd-client" "$release/examples/sign-client"
}
