# the signer opens sealed passphrases with its credential, and signs nothing without or with a wrong one
key=00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef

expect_request 201 POST /gen_key "$(key_request first)"
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_signed first
give_passphrase_key "$key"
in_container mkdir -p /etc/copr-keygen
in_container sh -c "echo 'phrases_dir = \"/run/copr-keygen/phrases\"' >/etc/copr-keygen/config.toml"
in_container systemctl try-restart "$service"
expect_match "seal" '1 passphrase sealed now' "$(with_passphrase_key seal 2>&1)"
note "credential encrypted with the key of the host: $encrypted"
in_container systemctl restart "$signer"
expect_signed first
expect_request 201 POST /gen_key "$(key_request second)"
expect_signed second

expect "clear passphrases in the state" "" \
    "$(in_container grep -L --recursive --include=passphrase '^sealed:1:' "$state" || true)"
expect "who may look into its memory" root "$(in_container stat -c %U "/proc/$(property MainPID "$signer")/mem")"
expect "core dumps" 0 "$(property LimitCORE "$signer")"

# After a boot the signer needs nothing but its socket: no passphrase has been opened into memory.
in_container sync
container_reboot
expect_signed first
expect_signed second
expect_state "$service" inactive
expect_state copr-keygen-phrases.service inactive
expect "opened phrases" "" "$(in_container find /run/copr-keygen "$state/phrases" -mindepth 1 -not -type d)"

refuses_to_start() {
    in_container systemctl restart "$signer" 2>/dev/null && fail "starts $1"
    expect "exit status $1" 78 "$(property ExecMainStatus "$signer")"
    message=$(journal --unit="$signer" --output=cat | grep passphrase-key | tail -1)
    expect_match "message $1" "$2" "$message"
    note "$message"
}
take_passphrase_key
refuses_to_start "without the credential" 'has no passphrase-key'
give_passphrase_key "ff${key#00}"
refuses_to_start "with the wrong one" 'is the wrong one'

# Clients do not wait in vain for an answer. After a second of such starts the socket fails, and clients are
# refused.
sign_client 127.0.0.1:5167 ping >/dev/null 2>&1 && fail "it answers"
wait_for 10 is "$signer_socket" failed || fail "the socket is $(property ActiveState "$signer_socket")"

give_passphrase_key "$key"
forget_starts
in_container systemctl restart "$signer_socket"
expect_signed first
