# nothing starts while the volume of the state is not mounted, and nothing is made below it

mount='var-lib-copr\x2dkeygen.mount'

# volume OPTIONS: puts the state on a volume of its own, which is mounted with these options.
volume() {
    in_container tee "/etc/systemd/system/$mount" >/dev/null <<END
[Unit]
Description=Volume of the state
[Mount]
What=tmpfs
Where=$state
Type=tmpfs
Options=$1
END
    in_container systemctl daemon-reload
    in_container systemctl reset-failed
}

stand_in_for_signd signd.service mounted
in_container systemctl stop "$socket" "$service"
in_container find "$state" -mindepth 1 -delete

volume no-such-option
for unit in copr-keygen.service copr-keygen-prolong.service copr-keygen-pool.service copr-keygen-phrases.service \
    copr-keygen-backup.service copr-keygen-pool.path copr-keygen-signd.service signd.service; do
    expect_match "what $unit needs" "(^| )$state( |\$)" "$(property RequiresMountsFor "$unit")"
    if in_container systemctl start "$unit" >/dev/null 2>&1; then
        fail "$unit was started"
    fi
    expect_state "$unit" inactive
done
expect_empty "$state"

# At boot, systemd-tmpfiles makes the directories of the state below the mount point.
in_container systemd-tmpfiles --create copr-keygen.conf
if words=$(in_container copr-keygen make "$(name_email unmounted)" --real unmounted 2>&1); then
    fail "a key was made below the mount point: $words"
fi
expect_match "what an operator is told" "^copr-keygen: error: $state: .* systemctl start $state\$" "$words"
expect_empty "$state/keys"
in_container find "$state" -mindepth 1 -delete

in_container systemctl stop "$socket"
volume mode=0700
in_container systemctl start "$mount"
in_container chown copr-signer:copr-signer "$state"
in_container systemctl start "$socket"
expect_request 201 POST /gen_key "$(key_request mounted)"
expect_request 200 GET /ready
expect "what /ready says" ready "$body"
