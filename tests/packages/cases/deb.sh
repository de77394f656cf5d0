# the package is upgraded while requests come in, removed, installed again and purged, and no key is lost
apt() {
    in_container env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@"
}

version() {
    # shellcheck disable=SC2016  # dpkg-query expands it
    in_container dpkg-query --show --showformat='${Version}' copr-keygen
}

certificate() {
    in_container sha256sum "$state/keys/$(name_email one)/pubring.kbx"
}

expect "version" 2.9.9-1 "$(version)"
for unit in "$socket" copr-keygen-prolong.timer copr-keygen-pool.path; do
    expect_state "$unit" active
done
expect "the signer's socket" disabled "$(in_container systemctl is-enabled "$signer_socket" || true)"
expect_request 201 POST /gen_key "$(key_request one)"
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
key=$(certificate)

# Requests and signatures go on all the time while the package is upgraded.
in_container touch /run/go-on
(
    while in_container test -e /run/go-on; do
        ask /ping
        echo
    done >"$container_dir/pings"
) &
pings=$!
in_container /usr/lib/copr-keygen-test/sign-client 127.0.0.1:5167 load "$(name_email one)" 20 >"$container_dir/signatures" &
signatures=$!
old=$(property MainPID)
apt install copr-keygen
in_container rm /run/go-on
wait "$pings"
wait "$signatures"
expect "version" 3.0.0-1 "$(version)"
expect "answers to pings" 200 "$(sort -u "$container_dir/pings")"
expect_match "signatures, and those that failed" '^[1-9][0-9]* 0$' "$(cat "$container_dir/signatures")"
note "during the upgrade: $(wc -l <"$container_dir/pings") answers; signatures made and failed: $(cat "$container_dir/signatures")"
expect_request 200 POST /gen_key "$(key_request one)"
[ "$(property MainPID)" != "$old" ] || fail "the old process still answers"
expect "the certificate" "$key" "$(certificate)"
in_container copr-keygen check
expect "what dpkg finds changed" '' "$(in_container dpkg --verify copr-keygen)"

apt remove copr-keygen
expect "state of the socket" inactive "$(property ActiveState "$socket")"
expect "state of the signer's socket" inactive "$(property ActiveState "$signer_socket")"
! in_container test -e /usr/bin/copr-keygen || fail "the program is still there"
expect "the certificate" "$key" "$(certificate)"

# Nobody has answered the question of the purge, so the keys stay. A new installation fills the pool at once, not
# only from the next boot on.
apt purge copr-keygen
expect "the certificate" "$key" "$(certificate)"
in_container rm -rf "$state/pool/rsa2048"
apt install copr-keygen
wait_for 60 in_container sh -c "ls -d $state/pool/rsa2048/*"
expect_request 200 POST /gen_key "$(key_request one)"

# Run the autopkgtest of the source package.
in_container sh -s <"$here/../../packaging/debian/tests/make-and-sign"

# purge_keys: purges the package and answers that the keys are to be destroyed.
purge_keys() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    in_container sh -c 'echo "copr-keygen copr-keygen/purge-keys boolean true" | debconf-set-selections'
    apt purge copr-keygen
}

# A directory where a volume is mounted is emptied, but cannot be removed.
in_container mount --bind "$state" "$state"
purge_keys
expect_empty "$state"
in_container umount "$state"

# If the state directory is a link, its target is not destroyed.
in_container sh -c "rmdir $state && install -d /srv/keys/keys && ln -s /srv/keys $state"
apt install copr-keygen
purge_keys
in_container test -d /srv/keys/keys
in_container rm "$state"

apt install copr-keygen
purge_keys
! in_container test -e "$state" || fail "the keys are still there"
