# tokens in a credential decide who may ask, also from another host, and never get into the journal
in_container install -d -m 0700 /etc/credstore /etc/credstore.encrypted
other_host_up

# The unit relies on this: a credential that LoadCredential= names by its path must exist, but one that it names
# by its name need not.
in_container systemctl cat "$service" | grep -qx 'LoadCredential=tokens:copr-keygen.tokens' || fail 'the unit asks for another'
expect "start with a name" 0 \
    "$(in_container systemd-run --quiet --wait -p LoadCredential=x:no.such.name true && echo 0 || echo $?)"
expect "start with a path" 243 \
    "$(in_container systemd-run --quiet --wait -p LoadCredential=x:/etc/no.such.file true 2>/dev/null && echo 0 || echo $?)"
expect "without any tokens" 200 "$(ask /keys)"

# The service does not start for other hosts without tokens.
open_to_other_host
in_container systemctl stop "$service" 2>/dev/null
in_container systemctl restart "$socket"
in_container systemctl restart "$service" 2>/dev/null && fail "started for other hosts without tokens"
expect "exit status" 78 "$(property ExecMainStatus)"
message=$(journal --unit="$service" --output=cat | grep 'no tokens' | tail -1)
expect_match "message" 'other hosts can reach 192\.0\.2\.10:5003 and there are no tokens' "$message"
note "$message"

line=$(in_container copr-keygen token backend.1)
token=$(cut -d' ' -f2 <<<"$line")
reading=$(in_container copr-keygen token prometheus --scopes read)
reader=$(cut -d' ' -f2 <<<"$reading")
printf '# who may ask\n%s\n%s\n' "$line" "$reading" |
    in_container sh -c 'umask 077; cat >/etc/credstore/copr-keygen.tokens'
forget_starts
in_container systemctl restart "$socket" "$service"

expect "without a token" 401 "$(ask /keys)"
expect "ping" 200 "$(ask /ping)"
expect "a token" 200 "$(ask --header "Authorization: Bearer $token" /keys)"
expect "the backend's way" 201 "$(ask --user "copr:$token" --data-binary "$(key_request tokens)" /gen_key)"
expect "another scope" 403 "$(ask --user "copr:$reader" --data-binary "$(key_request none)" /gen_key)"
expect "a scrape" 200 "$(ask --user "x:$reader" /metrics)"
expect "another host without" 401 "$(from_other_host /keys)"
expect "another host with" 200 "$(from_other_host --user "copr:$token" /keys)"
in_container ip -n client address add 192.0.2.66/24 dev outside
expect "an address not allowed" 000 "$(from_other_host --max-time 3 --interface 192.0.2.66 --user "copr:$token" /keys)"

# The log names the token and the peer.
record=$(journal --unit="$service" --output=json --lines=1 TOKEN_NAME=backend.1 HTTP_STATUS=201)
expect_match "who made the key" '"REMOTE_ADDRESS":"127\.0\.0\.1' "$record"
record=$(journal --unit="$service" --output=json --lines=1 HTTP_STATUS=401)
expect_match "who was not let in" '"REMOTE_ADDRESS":"192\.0\.2\.20' "$record"
expect_match "priority" '"PRIORITY":"4"' "$record"

# check, as root, reads the same file.
page=$(in_container copr-keygen check 2>&1 || true)
expect_match "tokens of check" 'ok        tokens: 2 in /etc/credstore/copr-keygen.tokens' "$page"
expect_match "address of check" '192\.0\.2\.10:5003: can be reached by other hosts; a token is needed' "$page"

# The same tokens, encrypted: only systemd can read them at rest.
in_container sh -euc '
    systemd-creds encrypt --with-key=host --name=tokens \
        /etc/credstore/copr-keygen.tokens /etc/credstore.encrypted/copr-keygen.tokens 2>/dev/null
    rm /etc/credstore/copr-keygen.tokens'
drop_in "$service" <<'END'
[Service]
LoadCredential=
LoadCredentialEncrypted=tokens:copr-keygen.tokens
END
in_container systemctl restart "$service"
expect "an encrypted credential" "401 200" "$(ask /keys) $(ask --user "copr:$token" /keys)"
page=$(in_container copr-keygen check 2>&1 || true)
expect_match "encrypted tokens of check" 'ok        tokens: 2 in /etc/credstore.encrypted/copr-keygen.tokens' "$page"

# The unit as installed does not decrypt that file. systemd 257 passes it on as it is, and 252 does not find it.
in_container mv "/run/systemd/system/$service.d/test.conf" /run/test.conf
in_container systemctl daemon-reload
page=$(in_container copr-keygen check 2>&1 || true)
expect_match "tokens that nobody decrypts" 'FAILED    tokens: .* is encrypted, and the unit does not decrypt it' "$page"
in_container mv /run/test.conf "/run/systemd/system/$service.d/test.conf"
in_container systemctl daemon-reload

# A wrong line is named by its number and not quoted. The encrypted file has to go, because systemd 257 finds it
# first.
in_container rm /etc/credstore.encrypted/copr-keygen.tokens
printf 'backend %s all\n' "$token" | in_container sh -c 'umask 077; cat >/etc/credstore/copr-keygen.tokens'
in_container rm "/run/systemd/system/$service.d/test.conf"
in_container systemctl daemon-reload
in_container systemctl restart "$service" 2>/dev/null && fail "started with a wrong scope"
expect "exit status" 78 "$(property ExecMainStatus)"
message=$(journal --unit="$service" --output=cat | grep 'line 1' | tail -1)
expect_match "message" 'the credential tokens: line 1: the scopes must be' "$message"
note "$message"

# On a Unix socket, users that allow_users names need no token.
in_container mkdir -p /etc/copr-keygen
in_container sh -c 'echo "allow_users = [\"daemon\"]" >/etc/copr-keygen/config.toml'
echo "$line" | in_container sh -c 'umask 077; cat >/etc/credstore/copr-keygen.tokens'
drop_in "$socket" <<'END'
[Socket]
ListenStream=/run/copr-keygen.sock
SocketMode=0666
END
forget_starts
in_container systemctl restart "$socket" "$service"
# by USER [CURL OPTION]...: sends a request on the Unix socket as that user, and prints the status.
by() {
    in_container setpriv --reuid="$1" --regid=nogroup --clear-groups curl --disable --silent --output /dev/null \
        --unix-socket /run/copr-keygen.sock --write-out '%{http_code}' "${@:2}" http://localhost/keys || true
}
expect "a user who is named" 200 "$(by daemon)"
expect "another user" 401 "$(by games)"
expect "another user with a token" 200 "$(by games --user "copr:$token")"

for secret in "$token" "$reader"; do
    journal | grep -qFe "$secret" && fail "a token is in the journal"
    in_container sh -c 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n"' |
        grep -v printf | grep -qFe "$secret" && fail "a token is in an environment or command line"
done
true
