# Functions for the cases on a host that has run the old service. Sourced by them.
# shellcheck shell=bash

# old_keyring: makes the layout of the old service with three keys, as its own code made it. Sets keyring to a
# file with their certificates.
old_keyring() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    as_signer sh -euc '
        umask 077
        cd "$1" && mkdir -p gnupg phrases
        for project in one two three; do
            printf "%s\n" "%no-protection" "Key-Type: RSA" "Key-Length: 2048" "Name-Real: user_$project" \
                "Name-Comment: None" "Name-Email: user#$project@copr.example.org" "Expire-Date: 0" "%commit" |
                gpg --homedir "$1/gnupg" --no-auto-check-trustdb --batch --quiet --gen-key
            echo 1 >"phrases/user#$project@copr.example.org"
        done
        gpgconf --homedir "$1/gnupg" --kill all' sh "$state"
    keyring=$container_dir/old.gpg
    as_signer gpg --homedir "$state/gnupg" --batch --export >"$keyring"
}

# old_sums DIRECTORY: prints checksums of all files of the old service, except those that gpg writes whenever it
# runs.
old_sums() {
    in_container sh -c "cd $1 && find gnupg phrases -type f ! -name '*.lock' ! -name 'trustdb.gpg' ! -name 'random_seed' \
        ! -name '*~' -exec sha256sum {} + | sort"
}

# sign_all WHEN: signs with every key as root, as signd does without an agent. gpgv verifies with the old
# certificates alone.
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

# do_what_is_left: runs the commands that `import` has printed as left to do, except `check` and `purge`, which
# come later.
do_what_is_left() {
    sed -n '/^left to do/,$p' | grep -v -e '^#' -e '^$' -e '^left to do' -e ' check$' -e ' purge ' |
        in_container sh -ex 2>"$container_dir/steps" || fail "$(cat "$container_dir/steps")"
}
