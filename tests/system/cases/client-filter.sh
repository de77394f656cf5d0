# IPAddressAllow= of the socket unit keeps other clients away, and only them
drop_in "$socket" <<'END'
[Socket]
IPAddressDeny=any
IPAddressAllow=127.0.0.1
END
in_container systemctl restart "$socket"
expect_request 200 GET /ping
refused=$(in_network curl --disable --noproxy '*' --silent --interface 127.0.0.2 --max-time 2 \
    --write-out '%{http_code}' http://127.0.0.1:5003/ping || true)
expect "answer to another address" 000 "$refused"
expect_request 200 GET /ping
