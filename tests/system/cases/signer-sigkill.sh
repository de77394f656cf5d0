# being killed ten times under load does not keep the signer from signing for the next client
expect_request 201 POST /gen_key "$(key_request first)"
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_signed first

for client in 1 2 3; do
    sign_client 127.0.0.1:5167 load "$(name_email first)" 25 >"$container_dir/load$client" &
done
kills=0
last=0
while [ "$kills" -lt 10 ]; do
    pid=$(property MainPID "$signer")
    if [ "$pid" = 0 ] || [ "$pid" = "$last" ]; then
        sleep 0.02
        continue
    fi
    # Some processes die at the start, most of them at work.
    sleep "0.$((RANDOM % 9))"
    in_container kill -KILL "$pid" || continue
    last=$pid
    kills=$((kills + 1))
    # This client waits in the socket for the next process.
    sign_client 127.0.0.1:5167 ping || fail "after the kill $kills, no process serves the next client"
done
wait

expect_state "$signer_socket" active
expect_signed first
[ "$(property NRestarts "$signer")" -ge 5 ] || fail "only $(property NRestarts "$signer") restarts by systemd"
expect_empty "$state/staging"
made=0 missed=0
for client in 1 2 3; do
    read -r got not <"$container_dir/load$client"
    made=$((made + got)) missed=$((missed + not))
done
[ "$made" -gt 100 ] || fail "only $made signatures under load"
note "$kills kills, $made signatures, $missed requests cut off, $(property NRestarts "$signer") restarts"
