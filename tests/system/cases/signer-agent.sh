# a key that only gpg-agent can use signs too, in the sandbox of the signer
in_container systemctl --quiet enable --now "$signer_socket" 2>&1

# A DSA key, because the signer does not use libcrypto for DSA.
elsewhere=/tmp/elsewhere
as_signer mkdir -m 0700 "$elsewhere"
as_signer gpg --homedir "$elsewhere" --quiet --batch --passphrase "" --quick-gen-key \
    "user_dsa <$(name_email dsa)>" dsa2048 sign never
as_signer gpgconf --homedir "$elsewhere" --kill all
in_container copr-keygen import --from "$elsewhere" >"$container_dir/import" 2>&1 || fail "$(cat "$container_dir/import")"
expect_signed dsa
expect_match "the log" ' dsa2048 ' "$(journal --unit="$signer" --output=cat "NAME_EMAIL=$(name_email dsa)")"
for _ in 1 2 3 4; do
    expect_signed dsa &
done
wait
expect_empty "$state/staging"
wait_for 10 no_process gpg-agent || fail "left behind: $(in_container pgrep -a gpg-agent)"
