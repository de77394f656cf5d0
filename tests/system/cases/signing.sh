# obs-signd's units, as installed, sign with a key that was just made
client=/usr/lib/copr-keygen-test/signd-client

# Stands in for obs-signd, which Debian does not have: the same calls, the same unit names, and
# nothing of its own in the way of the drop-in.
signd_unit() {
    in_container tee "/etc/systemd/system/$1" >/dev/null <<END
[Unit]
Description=Stand-in for obs-signd
[Service]
Type=oneshot
Environment=SIGND_PHRASES=$state/phrases SIGND_GPG=/usr/bin/gpg-copr
ExecStartPre=/bin/sh -c '! touch $state/keys/probe && ! touch $state/phrases/probe && ! touch /etc/probe'
ExecStart=$client sign $2 /etc/hostname
StandardOutput=truncate:/root/signature
StandardError=journal
END
    in_container systemctl daemon-reload
    expect "systemd-analyze verify $1" "" "$(in_container systemd-analyze verify "$1" 2>&1 || echo "exit status $?")"
}

# sign UNIT PROJECT: signs inside the unit, has gpgv of the host verify it.
sign() {
    local id file=$container_dir
    id=$(name_email "$2")
    signd_unit "$1" "$id"
    in_container systemctl start "$1" || fail "$(journal --unit="$1" --output=cat)"
    expect "user of $1" copr-signer "$(property User "$1")"
    in_container cat /root/signature >"$file/signature"
    in_container cat /etc/hostname >"$file/signed"
    as_signer gpg-copr --export "$id" >"$file/key"
    gpgv --keyring "$file/key" "$file/signature" "$file/signed" 2>&1 ||
        fail "gpgv on the signature of $1 for $id"
}

expect_request 201 POST /gen_key "$(key_request first)"
sign signd.service first
expect_request 201 POST /gen_key "$(key_request second)"
sign obssignd.service second
sign signd.service second

# root does not stay root.
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
