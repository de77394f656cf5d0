# the timer's service prolongs what is due, inside its sandbox, and tells the hook
prolong=copr-keygen-prolong.service
in_container systemctl --quiet enable --now copr-keygen-prolong.timer 2>&1
in_container systemctl start timers.target
expect_match "next run of the timer" "[0-9]" "$(property NextElapseUSecRealtime copr-keygen-prolong.timer)"

# The hook can write to the state and nowhere else, like the unit.
in_container tee /usr/bin/hook >/dev/null <<'END'
#!/bin/sh
cat >/var/lib/copr-keygen/told
END
in_container chmod 0755 /usr/bin/hook
in_container mkdir -p /etc/copr-keygen
in_container tee /etc/copr-keygen/config.toml >/dev/null <<<'hook = "/usr/bin/hook"'

expect_request 201 POST /gen_key "$(key_request soon '"expire": 30')"
expect_request 201 POST /gen_key "$(key_request late '"expire": "3y"')"
expect_request 201 POST /gen_key "$(key_request never)"
before=$(as_signer copr-keygen list --json)

in_container systemctl start "$prolong" || fail "$(journal --unit="$prolong" --output=cat)"
after=$(as_signer copr-keygen list --json)
expect "keys that did not change" 2 "$(comm -12 <(tr -d , <<<"$before" | sort) <(tr -d , <<<"$after" | sort) | grep -c name_email)"
expires=$(grep soon <<<"$after" | grep -o '"expires":[0-9]*' | cut -d: -f2)
years=$(((expires - $(date +%s) + 43200) / 86400))
expect "days the prolonged key has left" $((5 * 365)) "$years"
expect "what the hook was told" "$(name_email soon)" "$(in_container cat "$state/told")"
expect "self-signatures of the prolonged key" 2 \
    "$(as_signer copr-keygen show --json "$(name_email soon)" | grep -c '"good": true')"
expect_empty "$state/staging"
expect_whole_key soon

journal --unit="$prolong" --output=json --output-fields=KEYS_PROLONGED,KEYS_SEEN,MESSAGE_ID |
    grep -q '"KEYS_PROLONGED":"1"' || fail "no counts in the journal"
in_container journalctl --update-catalog
expect_match "explanation in the catalog" "signing keys were looked at" \
    "$(journal --unit="$prolong" --catalog KEYS_PROLONGED=1)"

# A key that fails makes the unit fail, but the other keys are prolonged all the same.
expect_request 201 POST /gen_key "$(key_request broken '"expire": 20')"
expect_request 201 POST /gen_key "$(key_request sound '"expire": 20')"
in_container truncate --size=100 "$state/keys/$(name_email broken)/pubring.kbx"
! in_container systemctl start "$prolong" || fail "it did not fail"
expect "exit status" 1 "$(property ExecMainStatus "$prolong")"
# The hook is told again about changes of the last minute.
expect "what the hook was told" "$(printf '%s\n' "$(name_email soon)" "$(name_email sound)")" \
    "$(in_container sort "$state/told")"
expect_match "what the log says" "key of $(name_email broken) was not prolonged" \
    "$(journal --unit="$prolong" --priority=err --output=cat)"

# A hook that hangs does not keep the unit from being stopped, and the stop does not count as a failure.
in_container tee /usr/bin/hook >/dev/null <<<$'#!/bin/sh\nsleep 600'
in_container systemctl start --no-block "$prolong"
wait_for 60 is_process sleep
in_container systemctl stop "$prolong"
expect "exit status" 143 "$(property ExecMainStatus "$prolong")"
expect "result of the unit" success "$(property Result "$prolong")"
wait_for 10 no_process sleep
