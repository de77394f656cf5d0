# an upgrade from one version to the next loses no request and no signature
name=$(name_email first)
in_container systemctl --quiet enable --now "$socket" "$signer_socket" copr-keygen-pool.path 2>&1
expect_request 201 POST /gen_key "$(key_request first)"
expect_signed first
before=$(property MainPID) signer_before=$(property MainPID "$signer")

# Both services get requests all the time while the package is replaced.
# shellcheck disable=SC2016  # expanded by the inner shell
in_container sh -c 'cd /root; touch asking; while [ -e asking ]; do
    curl --silent --fail --max-time 30 -d "$1" http://127.0.0.1:5003/gen_key >/dev/null && echo >>answers || echo failed >>failures
done' sh "$(key_request first)" &
asking=$!
in_container /usr/lib/copr-keygen-test/sign-client 127.0.0.1:5167 load "$name" 40 >"$container_dir/load" 2>&1 &
signing=$!
wait_for 10 in_container test -s /root/answers
in_container rpm -U '/srv/next/copr-keygen-[3-9]*.rpm' '/srv/next/copr-keygen-selinux-*.rpm' >"$container_dir/rpm" 2>&1 || fail "$(cat "$container_dir/rpm")"
answered=$(in_container sh -c 'wc -l </root/answers')
wait_for 20 in_container sh -c "[ \$(wc -l </root/answers) -gt $((answered + 1)) ]"
in_container rm /root/asking
wait "$asking"
wait "$signing"
expect_match "signatures made and missed" '^[1-9][0-9]* 0$' "$(cat "$container_dir/load")"
expect "requests without an answer" "" "$(in_container cat /root/failures 2>/dev/null || true)"
note "$(in_container sh -c 'wc -l </root/answers') answers and $(cut -d' ' -f1 "$container_dir/load") signatures meanwhile"

expect_match "installed" 'copr-keygen-[0-9.]+-1\.next' "$(in_container rpm -q copr-keygen)"
[ "$(property MainPID)" != "$before" ] || fail "the service runs the old program"
[ "$(property MainPID "$signer")" != "$signer_before" ] || fail "the signer runs the old program"
for unit in "$socket" "$signer_socket" copr-keygen-pool.path; do
    expect "$unit" enabled "$(in_container systemctl is-enabled "$unit")"
    expect_state "$unit" active
done
expect_signed first
