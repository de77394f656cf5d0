# from a backend on another host, through a sandbox without network, to a signature that verifies

# A token that only systemd can read at rest, and an address that only the backend can reach.
line=$(in_container copr-keygen token backend --pattern '*#*@copr.example.org')
token=$(cut -d' ' -f2 <<<"$line")
in_container install -d -m 0700 /etc/credstore.encrypted
in_container systemd-creds encrypt --with-key=host --name=tokens - /etc/credstore.encrypted/copr-keygen.tokens \
    <<<"$line" 2>/dev/null
drop_in "$service" <<'END'
[Service]
LoadCredential=
LoadCredentialEncrypted=tokens:copr-keygen.tokens
END
other_host_up
open_to_other_host
in_container systemctl restart "$socket"

# The backend gets a key of its own, and is refused a key of somebody else.
expect "a request without the token" 401 "$(from_other_host --data "$(key_request chain)" /gen_key)"
expect "a key of somebody else" 403 "$(from_other_host --user "copr:$token" \
    --data '{"name_real": "x", "name_email": "user#chain@copr.example.com"}' /gen_key)"
expect "a key" 201 "$(from_other_host --user "copr:$token" --data "$(key_request chain)" /gen_key)"
expect "the key again" 200 "$(from_other_host --user "copr:$token" --data "$(key_request chain)" /gen_key)"

# The process that made the key runs as an ordinary user, without capabilities, privileges or network.
pid=$(property MainPID)
expect "user" "$(in_container id -u copr-signer)" "$(status_of "$pid" Uid | cut -f2)"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
    expect "$set" 0000000000000000 "$(status_of "$pid" "$set")"
done
expect "new privileges" 1 "$(status_of "$pid" NoNewPrivs)"
expect "system calls" 2 "$(status_of "$pid" Seccomp)"
for kind in net mnt; do
    [ "$(in_container readlink "/proc/$pid/ns/$kind")" != "$(in_container readlink "/proc/1/ns/$kind")" ] ||
        fail "the service is in the $kind namespace of the host"
done
expect "its network devices" lo "$(in_container nsenter --net="/proc/$pid/ns/net" ip -oneline link | cut -d: -f2 | tr -d ' ')"
in_container nsenter --net="/proc/$pid/ns/net" curl --silent --max-time 3 http://192.0.2.20/ && fail "it reaches the backend"

# The unit of signd signs the package. The certificate that the backend was given verifies the signature.
stand_in_for_signd signd.service chain
expect "the certificate" 200 "$(from_other_host --user "copr:$token" '/keys/user%23chain@copr.example.org/pubkey')"
in_container cat /root/answer | gpg --dearmor >"$container_dir/certificate"
expect_signature signd.service "$container_dir/certificate"
note "$(gpgv --keyring "$container_dir/certificate" "$container_dir/signature" "$container_dir/signed" 2>&1 | grep Good)"
journal | grep -qFe "$token" && fail "the token is in the journal"
true
