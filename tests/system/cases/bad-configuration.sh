# a bad configuration is named, is not retried for ever, and can be mended as documented
in_container mkdir -p /etc/copr-keygen
in_container sh -c 'echo "colour = \"blue\"" >/etc/copr-keygen/config.toml'

request GET /ping
expect "answer" 000 "$status"
wait_for 20 is "$service" failed
wait_for 20 is "$socket" failed # by its TriggerLimitBurst
expect "exit status" 78 "$(property ExecMainStatus)"
expect "restarts by Restart=" 0 "$(property NRestarts)"
expect "why the socket gave up" trigger-limit-hit "$(property Result "$socket")"
message=$(journal --unit="$service" --output=cat | grep colour | tail -1)
expect_match "message" '/etc/copr-keygen/config\.toml.*colour' "$message"
note "$message"
note "$(journal --unit="$service" --output=cat | grep -c '^Starting ') starts until the socket gave up"

# A wrong value must be named as well, even if the journal is behind and the process that reported the value has
# ended.
in_container sh -c 'echo "key_length = 1024" >/etc/copr-keygen/config.toml'
in_container systemctl kill --signal=STOP systemd-journald.service
in_container systemctl restart "$service" 2>/dev/null && fail "started with key_length = 1024"
in_container systemctl kill --signal=CONT systemd-journald.service
message=$(journal --unit="$service" --output=cat | grep 1024 | tail -1)
expect_match "message" 'key_length.*1024.*/etc/copr-keygen/config\.toml' "$message"
note "$message"

in_container rm /etc/copr-keygen/config.toml
forget_starts
in_container systemctl restart copr-keygen.socket # as the comment in the unit says
expect_request 200 GET /ping
