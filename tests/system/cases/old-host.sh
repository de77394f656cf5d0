# a host of the old service signs before, while and after its keys are taken over, and nothing is lost
# shellcheck source=tests/system/old-service.sh
. "$here/old-service.sh"

in_container systemctl stop "$socket"
in_container sh -c "rm -rf $state/keys $state/pool $state/staging $state/gnupg $state/phrases"

# The files of the old service's package.
old_keyring
in_container sh -euc '
    mkdir -p /etc/cron.daily /etc/sudoers.d
    touch /etc/cron.daily/copr-keygen
    echo "copr-signer ALL = (root) NOPASSWD: /usr/bin/gpg" >/etc/sudoers.d/copr_signer
    usermod --shell /bin/bash copr-signer
    printf "%s\n" "allow: 127.0.0.1" "phrases: /var/lib/copr-keygen/phrases" "gpg: /usr/bin/gpg_copr.sh" >/etc/sign.conf'
before=$(old_sums "$state")
sign_all "with our gpg-copr in place of the old one"

# It is too early: no key is made, and the error message names the command to run.
in_container systemctl start "$socket"
request POST /gen_key "$(key_request one)"
expect_match "the answer" '^(000|503)$' "$status"
wait_for 20 is "$service" failed
expect "exit status" 78 "$(property ExecMainStatus)"
message=$(journal --unit="$service" --output=cat | grep 'keys of another service' | tail -1)
expect_match "message" 'pubring\.kbx holds the keys .* with: copr-keygen import$' "$message"
note "$message"
expect "what the old service has" "$before" "$(old_sums "$state")"
in_container systemctl stop "$socket"
forget_starts

page=$(in_container copr-keygen import --dry-run)
expect_match "dry run" '3 keys would be imported' "$page"
expect "what the old service has after a dry run" "$before" "$(old_sums "$state")"
page=$(in_container copr-keygen import)
expect_match "import" '3 keys imported, 0 were here already, 0 left out' "$page"
for step in 'rm /etc/cron.daily/copr-keygen' 'rm /etc/sudoers.d/copr_signer' 'systemctl daemon-reload' \
    'usermod --shell /usr/sbin/nologin copr-signer'; do
    grep -qxF "$step" <<<"$page" || fail "'$step' is not among what is left to do: $page"
done
sign_all "before anything else was done"
kept=$(in_container sh -c "ls -d $state/trash/*-old-service")
expect "what is kept" "$before" "$(old_sums "$kept")"
expect "files of others in the state" "" "$(in_container find "$state" ! -user copr-signer)"

# The units of signd are not installed here.
do_what_is_left <<<"$page"
for project in one two three; do
    expect_request 200 POST /gen_key "$(key_request "$project")"
done
expect "shell" /usr/sbin/nologin "$(in_container getent passwd copr-signer | cut -d: -f7)"
expect_match "sign.conf" 'gpg: /usr/bin/gpg-copr' "$(in_container cat /etc/sign.conf)"
sign_all "when all was done"
in_container copr-keygen purge --older-than 0d --yes 2>/dev/null
expect "the trash" "" "$(in_container ls "$state/trash")"
sign_all "after the purge"
