# systemctl stop lets a key in the making be finished and answered
expect_request 200 GET /ping

(fetch "$container_dir/slow" POST /gen_key "$(key_request slow '"key_length": 4096')" >"$container_dir/slow.status") &
slow=$!
wait_for 10 is_process gpg-agent
agent=$(in_container pgrep --exact gpg-agent)
# With its agent stopped, the key cannot be ready before the service is stopped. systemd signals the service
# alone.
in_container kill -STOP "$agent"
in_container systemctl stop --no-block "$service"
wait_for 10 is "$service" deactivating

# A request that comes in the meantime waits in the socket for the next process.
(fetch "$container_dir/late" GET /ping >"$container_dir/late.status") &
late=$!
sleep 1
expect_state "$service" deactivating
[ ! -s "$container_dir/slow.status" ] || fail "answered too early: $(cat "$container_dir/slow.status")"

in_container kill -CONT "$agent"
wait "$slow"
expect "answer to the key in the making" 201 "$(cat "$container_dir/slow.status")"
expect_whole_key slow
wait "$late"
expect "answer to the late request" 200 "$(cat "$container_dir/late.status")"
expect "restarts by systemd" 0 "$(property NRestarts)"
