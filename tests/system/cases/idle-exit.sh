# the service ends when idle, and the next request starts it again
drop_in "$service" <<'END'
[Service]
Environment=COPR_KEYGEN_IDLE_TIMEOUT=1s
END
expect_request 200 GET /ping
first=$(property MainPID)

wait_for 10 is "$service" inactive failed
expect "how it ended" success "$(property Result)"
expect "restarts by systemd" 0 "$(property NRestarts)"
expect_state "$socket" active

expect_request 200 GET /ping
[ "$(property MainPID)" != "$first" ] || fail "it is the same process"
