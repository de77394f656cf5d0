# a host with the old package and its keys signs before, while and after it is upgraded and its keys are taken over
# shellcheck source=tests/system/old-service.sh
. "$here/old-service.sh"

# rpm ARGUMENTS...: runs rpm in the container and shows its output only if it fails.
rpm() {
    in_container rpm "$@" >"$container_dir/rpm" 2>&1 || fail "rpm $*: $(cat "$container_dir/rpm")"
}

# rpm itself expands the patterns.
new=('/srv/repository/copr-keygen-[3-9]*.rpm' '/srv/repository/copr-keygen-selinux-*.rpm')
expect "installed" copr-keygen-2.2-1.noarch "$(in_container rpm -q copr-keygen)"
# The overlay of the test cannot rename directories of its lower layer, so the state is copied into the upper one.
in_container sh -c "cp -a $state $state.copy && rm -r $state && mv $state.copy $state"
old_keyring
in_container sh -c 'printf "%s\n" "allow: 127.0.0.1" "phrases: /var/lib/copr-keygen/phrases" "gpg: /usr/bin/gpg_copr.sh" >/etc/sign.conf'
in_container sh -c "echo DEBUG = False >/etc/copr-keygen/local_settings.py"
before=$(old_sums "$state")
sign_all "with the old package"

# Signatures are made all the time while the package is replaced, as root and with the passphrase of the old
# service.
in_container sh -c "cd /root; touch signing; while [ -e signing ]; do
    gpg_copr.sh --batch --no-armor --pinentry-mode=loopback --passphrase-fd=0 -u '$(name_email one)' -sbo - /etc/hostname \
        <'$state/phrases/$(name_email one)' >/dev/null 2>>failures && echo >>signatures || echo failed >>failures
done" &
signer_loop=$!
wait_for 10 in_container test -s /root/signatures
rpm -U "${new[@]}"
signed=$(in_container sh -c 'wc -l </root/signatures')
wait_for 10 in_container sh -c "[ \$(wc -l </root/signatures) -gt $((signed + 1)) ]"
in_container rm /root/signing
wait "$signer_loop"
# The kernel starts the old script by its name. A shell that opens it a moment later finds the new program, which
# it cannot read. obs-signd reports that, and its client asks again. Nothing else may fail.
failures=$(in_container grep -a -v -e '^failed$' -e '^/usr/bin/gpg_copr\.sh: ' /root/failures || true)
expect "failures while rpm replaced the package" "" "$failures"
missed=$(in_container sh -c 'grep -a -c "^failed" /root/failures' || true)
[ "$missed" -le 1 ] || fail "$missed signatures failed: $(in_container cat /root/failures)"
note "$(in_container sh -c 'wc -l </root/signatures') signatures meanwhile, $missed failed"

expect "what the old service has" "$before" "$(old_sums "$state")"
sign_all "with the new package"
for file in /etc/cron.daily/copr-keygen /etc/logrotate.d/copr-keygen /etc/sudoers.d/copr_signer /usr/bin/gpg-copr-prolong; do
    expect "$file" "" "$(in_container sh -c "ls $file* 2>/dev/null" || true)"
done
expect "packages" "copr-keygen copr-keygen-selinux" "$(in_container rpm -qa --qf '%{name}\n' 'copr-keygen*' | sort | xargs)"
in_container test -e /etc/copr-keygen/local_settings.py
expect "rpm -V" "" "$(in_container rpm -V copr-keygen 2>&1 || true)"
expect "what is enabled" "" "$(in_container sh -c "systemctl list-unit-files --no-legend --state=enabled 'copr-keygen*'")"
expect "what runs" "" "$(in_container systemctl list-units --no-legend 'copr-keygen*')"

page=$(in_container copr-keygen import)
expect_match "import" '3 keys imported, 0 were here already, 0 left out' "$page"
! grep -e cron.daily -e sudoers -e chmod <<<"$page" || fail "left to do although the package did it: $page"
sign_all "before anything else was done"
do_what_is_left <<<"$page"
for project in one two three; do
    expect_request 200 POST /gen_key "$(key_request "$project")"
done
sign_all "when all was done"

# Sign with the unit of obs-signd, which runs as the owner of the keys.
rpm -U /srv/repository/copr-keygen-obs-signd-*.rpm
stand_in_for_signd signd.service one
expect_signature signd.service "$keyring"
in_container copr-keygen purge --older-than 0d --old-service --yes 2>/dev/null
sign_all "after the purge"

# A removal leaves nothing but the keys. After another installation they can be used again.
before=$(in_container sh -c "cd $state && find keys -type f -exec sha256sum {} + | sort")
expect_match "keys" 'keys/user#three' "$before"
rpm -e copr-keygen-obs-signd copr-keygen-selinux copr-keygen
expect "keys after the removal" "$before" "$(in_container sh -c "cd $state && find keys -type f -exec sha256sum {} + | sort")"
expect "what runs after the removal" "" "$(in_container systemctl list-units --no-legend --state=active 'copr-keygen*')"
expect "what is left of it" "" "$(in_container find /usr /etc -path '/usr/lib/copr-keygen-test' -prune -o -name '*copr-keygen*' ! -path '/etc/copr-keygen*' -print)"
rpm -i "${new[@]}"
in_container systemctl --quiet enable --now "$socket" 2>&1
expect_request 200 POST /gen_key "$(key_request three)"
sign_all "installed again"
