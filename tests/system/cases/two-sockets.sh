# a TCP and a Unix socket in one socket unit both answer
expect_request 200 GET /ping # so that there is a process for the restart to replace
drop_in "$socket" <<'END'
[Socket]
ListenStream=/run/copr-keygen.sock
END
in_container systemctl restart "$socket"
expect "mode of the Unix socket" "660 root copr-signer" \
    "$(in_container stat --format '%a %U %G' /run/copr-keygen.sock)"

# unix METHOD PATH [BODY]: sends a request on the Unix socket as a user who may connect, and prints body and
# status.
unix() {
    in_container setpriv --reuid=daemon --regid="${group:-copr-signer}" --clear-groups curl --disable --silent --show-error --max-time 60 --unix-socket /run/copr-keygen.sock \
        --request "$1" ${3+--data-binary "$3"} --write-out '%{http_code}' "http://localhost$2"
}
expect "answer on the Unix socket" $'pong\n200' "$(unix GET /ping)"
expect_request 200 GET /ping
expect "key on the Unix socket" 201 "$(unix POST /gen_key "$(key_request unix)")"
expect_request 200 POST /gen_key "$(key_request unix)"

# The log says which user connected. A user outside of the group cannot connect.
record=$(journal --output=json --lines=1 "NAME_EMAIL=$(name_email unix)" HTTP_STATUS=201)
expect_match "client in the log" '"REMOTE_ADDRESS":"unix:uid=1,' "$record"
expect "answer to others" 000 "$(group=daemon unix GET /ping 2>/dev/null || true)"

# A process that ends must leave systemd's socket in place.
in_container systemctl stop "$service" 2>/dev/null
expect "answer of the next process" $'pong\n200' "$(unix GET /ping)"
