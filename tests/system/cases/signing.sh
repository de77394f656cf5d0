# obs-signd's units, as installed, sign with a key that was just made

# sign UNIT PROJECT
sign() {
    stand_in_for_signd "$1" "$2"
    expect "systemd-analyze verify $1" "" "$(in_container systemd-analyze verify "$1" 2>&1 || echo "exit status $?")"
    expect_signature "$1" "$(certificate "$2")"
}

expect_request 201 POST /gen_key "$(key_request first)"
sign signd.service first
expect_request 201 POST /gen_key "$(key_request second)"
sign obssignd.service second
sign signd.service second

# gpg-copr does not stay root when root starts it.
in_container tee /usr/bin/whoami-gpg >/dev/null <<'END'
#!/bin/sh
echo "$(id -un) $(id -Gn) $(grep CapEff /proc/self/status | cut -f2)"
END
in_container chmod 0755 /usr/bin/whoami-gpg
for program in gpg-copr gpg_copr.sh; do
    expect "what $program is when root runs it" "copr-signer copr-signer 0000000000000000" \
        "$(in_container env COPR_KEYGEN_GPG=/usr/bin/whoami-gpg "$program" --export -a "$(name_email first)")"
done
expect "public key as root and as copr-signer" \
    "$(as_signer gpg-copr --export -a "$(name_email first)")" \
    "$(in_container gpg-copr --export -a "$(name_email first)")"
expect "files of others in the state" "" "$(in_container find "$state" ! -user copr-signer)"

expect_match "an unknown user" "nothing exported" \
    "$(in_container gpg-copr --export -a "$(name_email nobody)" 2>&1)"
