# started by root outside of systemd, serve reads root's secrets and then is the owner of the state
in_container systemctl stop "$socket" "$service" 2>/dev/null
line=$(in_container copr-keygen token backend)
token=$(cut -d' ' -f2 <<<"$line")
in_container sh -euc 'umask 077; mkdir -p /etc/copr-keygen; cat >/etc/copr-keygen/tokens' <<<"$line"
in_container sh -euc 'umask 077; printf %064d 7 >/etc/copr-keygen/passphrase-key; chmod 0755 /etc/copr-keygen'
in_container sh -euc 'cat >/etc/copr-keygen/config.toml' <<'END'
tokens_file = "/etc/copr-keygen/tokens"
passphrase_key_file = "/etc/copr-keygen/passphrase-key"
phrases_dir = "/run/copr-keygen/phrases"
END
in_container install -d -o copr-signer -g copr-signer -m 0755 /run/copr-keygen
in_container copr-keygen seal
serve() {
    in_container sh -c 'cd /; setsid copr-keygen serve >/var/log/serve 2>&1 & echo $! >/run/serve.pid'
    wait_for 20 in_container curl --silent --fail --max-time 2 http://127.0.0.1:5003/ping ||
        fail "$(in_container cat /var/log/serve)"
    pid=$(in_container cat /run/serve.pid)
}
serve
expect "its user" copr-signer "$(in_container stat -c %U "/proc/$pid")"
expect "its user as the kernel sees it" "$(in_container id -u copr-signer)" "$(status_of "$pid" Uid | cut -f2)"
expect "capabilities" 0000000000000000 "$(status_of "$pid" CapEff)"
expect "a request without a token" 401 "$(ask --data "$(key_request off)" /gen_key)"
expect "a key" 201 "$(ask --user "x:$token" --data "$(key_request off)" /gen_key)"
expect_match "its passphrase" '^sealed:1:' "$(in_container cat "$state/keys/$(name_email off)/passphrase")"
expect "files of others in the state" "" "$(in_container find "$state" ! -user copr-signer)"
in_container kill "$pid"
wait_for 10 no_process copr-keygen
# The secrets may also belong to the owner of the keys.
in_container chown copr-signer /etc/copr-keygen/tokens /etc/copr-keygen/passphrase-key
serve
expect "the key again" 200 "$(ask --user "x:$token" --data "$(key_request off)" /gen_key)"
in_container copr-keygen phrases
in_container kill "$pid"
