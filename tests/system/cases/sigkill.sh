# being killed twenty times under load takes neither the socket nor a key
# load CLIENT: asks for keys and pings until the file `enough` exists, and records the keys that were made.
load() {
    local i=0 answer=$container_dir/client$1 got
    while [ ! -e "$container_dir/enough" ]; do
        i=$((i + 1))
        got=$(fetch "$answer" POST /gen_key "$(key_request "k$1-$i")" 2>/dev/null)
        if [ "$got" = 201 ]; then echo "k$1-$i" >>"$container_dir/made"; fi
        fetch "$answer" GET /ping >/dev/null 2>&1
    done
}
touch "$container_dir/made"
for client in 1 2 3; do
    load "$client" &
done

kills=0
last=0
while [ "$kills" -lt 20 ]; do
    pid=$(property MainPID)
    if [ "$pid" = 0 ] || [ "$pid" = "$last" ]; then
        sleep 0.02
        continue
    fi
    # Some processes die at the start, most of them at work. Every fourth has time to make a key.
    sleep "$((kills % 4 == 3)).$((RANDOM % 10))"
    if in_container kill -KILL "$pid"; then
        last=$pid
        kills=$((kills + 1))
    fi
done
touch "$container_dir/enough"
wait

expect_state "$socket" active
expect_request 201 POST /gen_key "$(key_request after)"
[ "$(property NRestarts)" -ge 10 ] || fail "only $(property NRestarts) restarts by systemd"

# Every request that was answered 201 has its key, and nothing half-made is left.
while read -r project; do
    expect_request 200 POST /gen_key "$(key_request "$project")"
    expect_whole_key "$project"
done <"$container_dir/made"
staging_is_empty() {
    [ -z "$(in_container find "$state/staging" -mindepth 1)" ]
}
wait_for 10 staging_is_empty || fail "staging: $(in_container find "$state/staging")"
wait_for 10 no_process gpg-agent || fail "left behind: $(in_container pgrep -a gpg-agent)"
note "$kills kills, $(wc -l <"$container_dir/made") keys made in between, $(property NRestarts) restarts"
