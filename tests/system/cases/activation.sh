# the first request through the socket starts the service, which makes a key
expect_state "$socket" active
expect_state "$service" inactive

expect_request 200 GET /ping
expect "body of /ping" pong "$body"
expect_state "$service" active

expect_request 201 POST /gen_key "$(key_request first)"
expect "body of /gen_key" "" "$body"
expect_match "headers" $'\nX-Request-Id: .' "$headers"
expect_request 200 POST /gen_key "$(key_request first)"
expect_whole_key first

# Look at the key as the README tells people to.
listing=$(as_signer gpg --homedir "$state/keys/$(name_email first)" --trust-model always -K)
as_signer gpgconf --homedir "$state/keys/$(name_email first)" --kill gpg-agent
expect_match "gpg -K" 'sec +rsa2048 [-0-9]+ \[SC\]' "$listing"
expect_match "gpg -K" 'user_first <user#first@copr\.example\.org>' "$listing"
