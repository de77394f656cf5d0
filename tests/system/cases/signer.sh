# the signer signs with a key that was just made, started by its socket, until it is idle
expect "enabled by itself" disabled "$(in_container systemctl is-enabled "$signer_socket" || true)"
expect_state "$signer_socket" inactive
expect_refusal 'Connection refused' 127.0.0.1:5167 ping

in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_state "$signer_socket" active
expect_state "$signer" inactive
drop_in "$signer" <<'END'
[Service]
Environment=COPR_KEYGEN_IDLE_TIMEOUT=2s
END
expect_refusal "^unknown key: $(name_email first)\$" 127.0.0.1:5167 pubkey "$(name_email first)"
expect_request 201 POST /gen_key "$(key_request first)"
expect_signed first
first=$(property MainPID "$signer")
expect "user of the signer" copr-signer "$(property User "$signer")"
expect_match "certificate" 'BEGIN PGP PUBLIC KEY BLOCK' "$(sign_client 127.0.0.1:5167 pubkey "$(name_email first)")"
expect_match "status text" '^signatures: 1, ' "$(property StatusText "$signer")"

# The signer ends when it is idle, and the next connection starts it again.
wait_for 10 is "$signer" inactive failed
expect "how it ended" success "$(property Result "$signer")"
expect_state "$signer_socket" active
expect_request 201 POST /gen_key "$(key_request second)"
expect_signed second
[ "$(property MainPID "$signer")" != "$first" ] || fail "it is the same process"
expect "restarts by systemd" 0 "$(property NRestarts "$signer")"

# Add a Unix socket beside the TCP socket.
drop_in "$signer_socket" <<'END'
[Socket]
ListenStream=/run/copr-keygen-signd.sock
END
in_container systemctl stop "$signer"
in_container systemctl restart "$signer_socket"
expect_signed first unix:/run/copr-keygen-signd.sock
expect "who can connect" "660 root copr-signer" "$(in_container stat -c '%a %U %G' /run/copr-keygen-signd.sock)"
expect_signed first

# The signer has left nothing behind, and the keys are as they were.
expect_empty "$state/staging"
expect_whole_key first
