# several hosts: keys agreed on through etcd in the sandbox; an emptied host has them again
follow=copr-keygen-follow.service

etcd=$(command -v etcd) || fail "there is no etcd on this host (package etcd-server)"
in_container sh -c 'cat >/usr/bin/etcd && chmod 0755 /usr/bin/etcd' <"$etcd"
in_container systemd-run --quiet --unit=etcd /usr/bin/etcd --data-dir /var/lib/etcd \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380

# Set up as docs/cluster.md says, with an etcd that only this host can reach.
give_passphrase_key 00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef
in_container mkdir -p /etc/copr-keygen
in_container sh -c "echo 'phrases_dir = \"/run/copr-keygen/phrases\"' >/etc/copr-keygen/config.toml"
expect_match "seal" 'passphrases sealed now' "$(with_passphrase_key seal 2>&1)"
in_container tee -a /etc/copr-keygen/config.toml >/dev/null <<END
[cluster]
endpoints = ["http://127.0.0.1:2379"]
END
drop_in=/usr/share/doc/copr-keygen/contrib/cluster/20-cluster.conf
for unit in copr-keygen copr-keygen-follow copr-keygen-prolong; do
    in_container install -D -m 0644 "$drop_in" "/etc/systemd/system/$unit.service.d/20-cluster.conf"
done
in_container systemctl daemon-reload
in_container systemctl --quiet enable --now "$follow" 2>&1
in_container systemctl try-restart "$service"

expect_request 201 POST /gen_key "$(key_request first)"
expect_request 200 GET /ready
made=$(certificate first)
is_up_to_date() {
    [[ $(property StatusText "$follow") = 'up to date with revision'* ]]
}
wait_for 20 is_up_to_date || fail "its status: $(property StatusText "$follow")"
note "$(property StatusText "$follow"), memory: $(property MemoryCurrent "$follow")"
in_container systemctl start copr-keygen-prolong.service
expect "prolong" success "$(property Result copr-keygen-prolong.service)"

# The disk of this host is replaced by an empty one.
in_container systemctl stop "$follow" "$socket" "$service"
in_container sh -c "rm -rf $state/* /run/copr-keygen/phrases && systemd-tmpfiles --create"
in_container sh -c 'mv /etc/copr-keygen/config.toml /root/ && head -n 1 /root/config.toml >/etc/copr-keygen/config.toml'
with_passphrase_key seal 2>&1
in_container mv /root/config.toml /etc/copr-keygen/config.toml
in_container systemctl start "$follow" "$socket"
has_key() {
    in_container test -e "$state/keys/$(name_email first)/key.json"
}
wait_for 40 has_key || fail "$(journal --unit="$follow" --output=cat)"
expect "the certificate" "$made" "$(certificate first)"
expect_request 200 POST /gen_key "$(key_request first)"

# Without etcd, the host serves the keys that it has. For any other key the backend has to ask again.
in_container systemctl stop etcd
expect_request 200 POST /gen_key "$(key_request first)"
expect_request 503 POST /gen_key "$(key_request second)"
expect_match "headers" 'Retry-After: ' "$headers"
expect_request 503 GET /ready
expect_state "$follow" active
in_container systemctl stop "$follow"
expect "how it ended" success "$(property Result "$follow")"
