# the watchdog replaces a process that has stopped working
drop_in "$service" <<'END'
[Service]
WatchdogSec=2s
END
expect_request 200 GET /ping
stopped=$(property MainPID)

# The watchdog must not kill a process that works.
sleep 3
expect "process after 3 s" "$stopped" "$(property MainPID)"

in_container kill -STOP "$stopped"
expect_request 200 GET /ping
[ "$(property MainPID)" != "$stopped" ] || fail "it is the same process"
expect "restarts by systemd" 1 "$(property NRestarts)"
expect_match "journal" "Watchdog timeout" "$(journal --unit="$service" --output=cat)"
