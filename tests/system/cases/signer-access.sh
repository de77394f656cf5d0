# the signer is for this host alone, until its socket and signd.allow let another one in
expect_request 201 POST /gen_key "$(key_request first)"
expect_request 201 POST /gen_key "$(key_request second)"
other_host_up
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
there=(ip netns exec client)

# from_there ARGUMENTS...: prints what the client on the other host is told.
from_there() {
    {
        in_container timeout 10 "${there[@]}" /usr/lib/copr-keygen-test/sign-client 192.0.2.10:5167 "$@" \
            >"$container_dir/output" || true
    } 2>&1
}

expect_match "before" 'Connection refused' "$(from_there ping)"

# Only the socket is open to the other host; signd.allow has no rule for it.
drop_in "$signer_socket" <<'END'
[Socket]
ListenStream=192.0.2.10:5167
FreeBind=yes
END
in_container systemctl restart "$signer_socket"
expect_match "a stranger" 'may not have anything signed; the setting signd.allow' "$(from_there sign "$(name_email first)" /etc/hostname)"
expect_match "a stranger" 'may not have anything signed' "$(from_there ping)"
expect_signed first
expect_match "the warning" 'other hosts can reach 192\.0\.2\.10:5167' "$(journal --unit="$signer" --output=cat)"

# signd.allow lets the other host use one key.
in_container mkdir -p /etc/copr-keygen
in_container tee /etc/copr-keygen/config.toml >/dev/null <<END
[signd]
allow = ["127.0.0.0/8 *", "192.0.2.20 $(name_email first)"]
END
in_container systemctl restart "$signer"
expect_signed first 192.0.2.10:5167 "${there[@]}"
expect_match "another key" 'may not use the key, if there is one' "$(from_there sign "$(name_email second)" /etc/hostname)"
expect_match "no key" 'may not use the key, if there is one' "$(from_there sign "$(name_email third)" /etc/hostname)"
expect_signed second

# IPAddressDeny= makes systemd drop packets before the signer sees them.
drop_in "$signer_socket" <<'END'
[Socket]
ListenStream=192.0.2.10:5167
FreeBind=yes
IPAddressDeny=any
IPAddressAllow=localhost
END
in_container systemctl restart "$signer_socket"
expect "an answer to a host whose packets are dropped" 124 \
    "$(in_container timeout 3 "${there[@]}" /usr/lib/copr-keygen-test/sign-client 192.0.2.10:5167 ping >/dev/null 2>&1 || echo $?)"
expect_signed second
expect_match "check" '192\.0\.2\.10:5167: was not asked: IPAddressDeny=' "$(in_container copr-keygen check 2>&1)"

# A wrong rule keeps the signer from starting, with the exit status that ends the restarts.
in_container sh -c "printf '[signd]\nallow = \"localhost *\"\n' >/etc/copr-keygen/config.toml"
in_container systemctl restart "$signer" 2>/dev/null && fail "it starts with a wrong rule"
expect "exit status" 78 "$(property ExecMainStatus "$signer")"
expect "restarts by systemd" 0 "$(property NRestarts "$signer")"
