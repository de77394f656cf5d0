# a host of the old service signs before, while and after its keys are taken over, and nothing is lost
in_container systemctl stop "$socket"
in_container sh -c "rm -rf $state/keys $state/pool $state/staging $state/gnupg $state/phrases"

# The old service's layout, as its own code made it, and the files of its package.
# shellcheck disable=SC2016  # expanded by the inner shell
as_signer sh -euc '
    umask 077
    cd "$1" && mkdir gnupg phrases
    for project in one two three; do
        printf "%s\n" "%no-protection" "Key-Type: RSA" "Key-Length: 2048" "Name-Real: user_$project" \
            "Name-Comment: None" "Name-Email: user#$project@copr.example.org" "Expire-Date: 0" "%commit" |
            gpg --homedir "$1/gnupg" --no-auto-check-trustdb --batch --quiet --gen-key
        echo 1 >"phrases/user#$project@copr.example.org"
    done
    gpgconf --homedir "$1/gnupg" --kill all' sh "$state"
in_container sh -euc '
    mkdir -p /etc/cron.daily /etc/sudoers.d
    touch /etc/cron.daily/copr-keygen
    echo "copr-signer ALL = (root) NOPASSWD: /usr/bin/gpg" >/etc/sudoers.d/copr_signer
    usermod --shell /bin/bash copr-signer
    printf "%s\n" "allow: 127.0.0.1" "phrases: /var/lib/copr-keygen/phrases" "gpg: /usr/bin/gpg_copr.sh" >/etc/sign.conf'
keyring=$container_dir/old.gpg
as_signer gpg --homedir "$state/gnupg" --batch --export >"$keyring"

# sums: of everything the old service has, but what gpg writes whenever it runs.
sums() {
    in_container sh -c "cd $1 && find gnupg phrases -type f ! -name '*.lock' ! -name 'trustdb.gpg' ! -name 'random_seed' \
        ! -name '*~' -exec sha256sum {} + | sort"
}

# sign: as signd without an agent does, as root; gpgv, which knows the old certificates only, verifies.
sign_all() {
    local project
    for project in one two three; do
        printf '%s' "$project" >"$container_dir/data"
        in_container sh -c "f=\$(mktemp) && printf %s $project >\$f && chmod 0644 \$f && gpg_copr.sh --batch --digest-algo=SHA256 \
            --no-verbose --no-armor --no-secmem-warning --ignore-time-conflict --pinentry-mode=loopback \
            --passphrase-fd=0 -u '$(name_email $project)' -sbo - \$f <'$state/phrases/$(name_email $project)'" \
            >"$container_dir/sig" || fail "$1: $project was not signed"
        gpgv --keyring "$keyring" "$container_dir/sig" "$container_dir/data" 2>"$container_dir/said" ||
            fail "$1: $(cat "$container_dir/said")"
    done
}

before=$(sums "$state")
sign_all "with our gpg-copr in place of the old one"

# Too early: nothing is made, the sentence names the command.
in_container systemctl start "$socket"
request POST /gen_key "$(key_request one)"
expect_match "the answer" '^(000|503)$' "$status"
wait_for 20 is "$service" failed
expect "exit status" 78 "$(property ExecMainStatus)"
message=$(journal --unit="$service" --output=cat | grep 'keys of another service' | tail -1)
expect_match "message" 'pubring\.kbx holds the keys .* with: copr-keygen import$' "$message"
note "$message"
expect "what the old service has" "$before" "$(sums "$state")"
in_container systemctl stop "$socket"
forget_starts

page=$(in_container copr-keygen import --dry-run)
expect_match "dry run" '3 keys would be imported' "$page"
expect "what the old service has after a dry run" "$before" "$(sums "$state")"
page=$(in_container copr-keygen import)
expect_match "import" '3 keys imported, 0 were here already, 0 left out' "$page"
for step in 'rm /etc/cron.daily/copr-keygen' 'rm /etc/sudoers.d/copr_signer' 'systemctl daemon-reload' \
    'usermod --shell /usr/sbin/nologin copr-signer'; do
    grep -qxF "$step" <<<"$page" || fail "'$step' is not among what is left to do: $page"
done
sign_all "before anything else was done"
kept=$(in_container sh -c "ls -d $state/trash/*-old-service")
expect "what is kept" "$before" "$(sums "$kept")"
expect "files of others in the state" "" "$(in_container find "$state" ! -user copr-signer)"

# What is printed is typed in, but for the units of signd, which is not installed here.
sed -n '/^left to do/,$p' <<<"$page" | grep -v -e '^#' -e '^$' -e '^left to do' -e ' check$' -e ' purge ' |
    in_container sh -ex 2>"$container_dir/steps" || fail "$(cat "$container_dir/steps")"
for project in one two three; do
    expect_request 200 POST /gen_key "$(key_request "$project")"
done
expect "shell" /usr/sbin/nologin "$(in_container getent passwd copr-signer | cut -d: -f7)"
expect_match "sign.conf" 'gpg: /usr/bin/gpg-copr' "$(in_container cat /etc/sign.conf)"
sign_all "when all was done"
in_container copr-keygen purge --older-than 0d --yes 2>/dev/null
expect "the trash" "" "$(in_container ls "$state/trash")"
sign_all "after the purge"
