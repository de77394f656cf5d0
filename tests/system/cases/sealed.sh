# sealed passphrases: opened into memory at boot, and nothing works with the wrong credential
phrases=/run/copr-keygen/phrases

stand_in_for_signd signd.service first "$phrases"
sign() {
    expect_signature signd.service "$(certificate first)"
}

# Without a credential everything works as before. With a credential, the service logs a hint.
expect_request 201 POST /gen_key "$(key_request first)"
in_container systemctl start copr-keygen-pool.service
give_passphrase_key 00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef
note "credential encrypted with the key of the host: $encrypted"
in_container systemctl restart "$service"
expect_request 200 GET /ping
expect_match "the hint" 'copr-keygen seal' "$(journal --unit="$service" --output=cat)"

# Seal the passphrases as docs/sealing.md says.
in_container mkdir -p /etc/copr-keygen
in_container sh -c "echo 'phrases_dir = \"$phrases\"' >/etc/copr-keygen/config.toml"
in_container systemctl --quiet enable --now copr-keygen-phrases.service 2>&1
in_container systemctl try-restart "$service"
sign
expect_match "seal" 'passphrases sealed now' "$(with_passphrase_key seal 2>&1)"
sign
expect "clear passphrases in the state" "" \
    "$(in_container grep -L --recursive --include=passphrase '^sealed:1:' "$state" || true)"
expect "links in the state" "" "$(in_container find "$state/phrases" -mindepth 1)"
expect_match "its file system" tmpfs "$(in_container stat -f -c %T "$phrases")"
expect "who may read phrases" "700 copr-signer" "$(in_container stat -c '%a %U' "$phrases")"
expect_request 201 POST /gen_key "$(key_request second)"
expect "what signd sees" "$(name_email first) $(name_email second)" \
    "$(in_container ls "$phrases" | paste -sd ' ')"
# If a process must not be inspected, the kernel makes root the owner of its files in /proc.
expect "who may look into its memory" root "$(in_container stat -c %U "/proc/$(property MainPID)/mem")"
expect_match "check" 'each with a sealed passphrase' "$(with_passphrase_key check --sign-conf /dev/null 2>&1 || true)"

# After a boot, before anybody has asked for a key.
in_container sync
container_reboot
expect_state "$service" inactive
expect "phrases after a boot" 2 "$(in_container ls "$phrases" | wc -l)"
sign
expect_request 201 POST /gen_key "$(key_request third)"
expect "phrases with another key" 3 "$(in_container ls "$phrases" | wc -l)"

# The wrong credential, and none.
sums() {
    in_container sh -c "cd $state && find . -type f -exec sha256sum {} + | sort -k2"
}
in_container systemctl stop "$socket" "$service"
before=$(sums)
give_passphrase_key ff112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef
in_container systemctl restart "$service" 2>/dev/null && fail "serves with the wrong credential"
expect "exit status" 78 "$(property ExecMainStatus)"
message=$(journal --unit="$service" --output=cat | grep 'is the wrong one' | tail -1)
expect_match "message" 'passphrase-key.*docs/sealing' "$message"
note "$message"
in_container systemctl restart copr-keygen-phrases.service 2>/dev/null && fail "opens with the wrong credential"
expect "exit status of phrases" 78 "$(property ExecMainStatus copr-keygen-phrases.service)"
take_passphrase_key
in_container systemctl restart "$service" 2>/dev/null && fail "serves without a credential"
expect "exit status without one" 78 "$(property ExecMainStatus)"
expect_match "message" 'has no passphrase-key' "$(journal --unit="$service" --output=cat | grep 'passphrase-key' | tail -1)"
expect "the state" "$before" "$(sums)"

# With the right credential it serves again, and sealing can be turned off.
give_passphrase_key 00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef
forget_starts
in_container systemctl restart copr-keygen-phrases.service "$socket"
expect_request 200 POST /gen_key "$(key_request first)"
sign
expect_match "unseal" 'passphrases unsealed now' "$(with_passphrase_key unseal 2>&1)"
expect "sealed passphrases in the state" "" \
    "$(in_container grep -l --recursive --include=passphrase '^sealed:' "$state" || true)"
expect_request 201 POST /gen_key "$(key_request fourth)"
sign
