# 200 requests sent around idle exits are all answered
drop_in "$service" <<'END'
[Service]
Environment=COPR_KEYGEN_IDLE_TIMEOUT=1s
END
for i in 0 1 2 3 4; do
    expect_request 201 POST /gen_key "$(key_request "idle$i")"
done

# one_request NUMBER: sends a request and prints what went wrong, if anything.
one_request() {
    local answer=$container_dir/request-$1 got
    if [ $(($1 % 2)) = 0 ]; then
        got=$(fetch "$answer" GET /ping)
    else
        got=$(fetch "$answer" POST /gen_key "$(key_request "idle$(($1 % 5))")")
    fi
    [ "$got" = 200 ] || echo "request $1: $got $(cat "$answer.body")"
}

# microseconds: prints the time of day in microseconds.
microseconds() {
    echo "${EPOCHREALTIME/[.,]/}"
}

# Send twenty volleys of ten requests. Each is aimed at the idle exit, which comes a second after the last answer.
# If the process is still the same as before, the next volley comes a little later, otherwise a little sooner.
sent=0
wrong=$container_dir/wrong
aim=960000
process=$(property MainPID)
for _ in {1..20}; do
    wait
    answered=$(microseconds)
    now=$(property MainPID)
    if [ "$now" = "$process" ]; then aim=$((aim + 6000)); else aim=$((aim - 6000)); fi
    process=$now
    left=$((answered + aim - $(microseconds)))
    sleep "$(printf '0.%06d' "$((left > 0 ? left : 0))")"
    for _ in {1..10}; do
        one_request "$sent" >>"$wrong" 2>&1 &
        sent=$((sent + 1))
        sleep 0.01
    done
done
wait

expect "requests not answered with 200" "" "$(cat "$wrong")"
expect "restarts by systemd" 0 "$(property NRestarts)"
starts=$(journal --unit="$service" --output=cat | grep -c '^Started ')
note "$sent requests, answered by $starts processes in turn"
[ "$starts" -ge 5 ] || fail "only $starts starts: the requests did not fall around idle exits"
