# one signs: the signer stops obs-signd, and obs-signd stops the signer
listens() {
    in_container ss --no-header --listening --tcp --processes 'sport = :5167'
}
signd_listens() {
    listens | grep perl
}

expect_request 201 POST /gen_key "$(key_request first)"
for unit in signd.service obssignd.service; do
    listening_stand_in_for_signd "$unit"
    expect "systemd-analyze verify $unit" "" "$(in_container systemd-analyze verify "$unit" 2>&1 || echo "exit status $?")"
    in_container systemctl start "$unit"
    wait_for 10 signd_listens || fail "$(journal --unit="$unit")"

    in_container systemctl start "$signer_socket"
    expect_state "$unit" inactive
    expect_state "$signer_socket" active
    expect_signed first
    expect_state "$signer" active

    in_container systemctl start "$unit"
    wait_for 10 signd_listens || fail "$(journal --unit="$unit")"
    expect_state "$unit" active
    expect_state "$signer_socket" inactive
    expect_state "$signer" inactive

    # The signer also stops obs-signd when it is started by hand, without its socket.
    in_container systemctl start "$signer"
    expect_state "$unit" inactive
    expect_signed first
    in_container systemctl stop "$signer_socket" "$signer"
done

# If both are enabled at boot, one of them runs, and systemd does not find an ordering cycle.
in_container systemctl --quiet enable signd.service "$signer_socket" 2>&1
container_reboot
expect "units that are active" 1 "$(in_container systemctl is-active signd.service "$signer_socket" | grep -cx active)"
note "enabled both, $(in_container systemctl is-active --quiet "$signer_socket" && echo the signer || echo obs-signd) runs after a boot"
expect "circles" "" "$(journal --grep='ordering cycle' || true)"

# Enable only the signer, as its unit says.
in_container systemctl --quiet disable signd.service 2>&1
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_signed first
container_reboot
expect_state signd.service inactive
expect_signed first
