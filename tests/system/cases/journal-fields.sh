# the journal can be searched by request, key and status, and has real priorities
expect_request 201 POST /gen_key "$(key_request journal)"
id=$(sed -n 's/^X-Request-Id: //p' <<<"$headers")
fingerprint=$(as_signer gpg --homedir "$state/keys/$(name_email journal)" --with-colons \
    --trust-model always --list-keys | awk -F: '$1 == "fpr" { print $10; exit }')
expect_request 400 POST /gen_key '{"name_real": "nobody"}'
refused=$(sed -n 's/^X-Request-Id: //p' <<<"$headers")

# record FIELD=VALUE...: prints the newest record of the service that has these fields, as one line of JSON.
record() {
    record_of "$service" "$@"
}
record_of() {
    local found
    found=$(journal --unit="$1" --output=json --lines=1 "${@:2}")
    [ -n "$found" ] || fail "no record with $*; there are: $(journal --unit="$1" --output=json)"
    echo "$found"
}

line=$(record "REQUEST_ID=$id" HTTP_STATUS=201)
expect_match "REMOTE_ADDRESS" '"REMOTE_ADDRESS":"127\.0\.0\.1' "$line"
expect_match "DURATION_MS" '"DURATION_MS":"[0-9]+(\.[0-9]+)?"' "$line"
expect_match "_TRANSPORT" '"_TRANSPORT":"journal"' "$line"
expect_match "PRIORITY" '"PRIORITY":"[56]"' "$line"
record "REQUEST_ID=$id" "NAME_EMAIL=$(name_email journal)" >/dev/null
record "NAME_EMAIL=$(name_email journal)" "FINGERPRINT=$fingerprint" >/dev/null
record "REQUEST_ID=$refused" HTTP_STATUS=400 >/dev/null

# The catalog explains the messages, once the package has updated it.
in_container journalctl --update-catalog
expect_match "explanation" "Subject: The key of $(name_email journal) was made" \
    "$(journal --catalog "REQUEST_ID=$id")"

# The journal, too, gets a failure as an error, and not as one more line of the default priority.
drop_in "$service" <<'END'
[Service]
Environment=COPR_KEYGEN_GPG=/usr/bin/false
END
in_container systemctl restart "$service"
expect_request 500 POST /gen_key "$(key_request broken)"
record PRIORITY=3 "NAME_EMAIL=$(name_email broken)" >/dev/null

# The journal says what the signer has signed, for whom, and with which key.
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_signed journal
line=$(record_of "$signer" "NAME_EMAIL=$(name_email journal)" "FINGERPRINT=$fingerprint" SIGN_COMMAND=sign RESULT=ok)
expect_match "REMOTE_ADDRESS" '"REMOTE_ADDRESS":"127\.0\.0\.1' "$line"
expect_match "DURATION_MS" '"DURATION_MS":"[0-9]+"' "$line"
expect_match "ALGORITHM" '"ALGORITHM":"rsa2048"' "$line"
expect_match "HASH" '"HASH":"SHA256"' "$line"
expect_match "DIGESTS" '"DIGESTS":"[0-9a-f]{64}"' "$line"
expect_match "PRIORITY" '"PRIORITY":"[56]"' "$line"
id=$(sed -n 's/.*"REQUEST_ID":"\([^"]*\)".*/\1/p' <<<"$line")
expect_match "explanation" "Subject: The signer answered a request: ok" "$(journal --catalog "REQUEST_ID=$id")"
expect_refusal '^malformed argument$' 127.0.0.1:5167 pubkey $'a\nb'
record_of "$signer" RESULT=malformed PRIORITY=4 >/dev/null
