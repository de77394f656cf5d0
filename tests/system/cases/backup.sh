# the timer's service writes an encrypted archive inside its sandbox, and fails without a recipient
backup=copr-keygen-backup.service
expect "enabled by itself" disabled "$(in_container systemctl is-enabled copr-keygen-backup.timer || true)"
in_container systemctl --quiet enable --now copr-keygen-backup.timer 2>&1
in_container systemctl start timers.target
expect_match "next run of the timer" "[0-9]" "$(property NextElapseUSecRealtime copr-keygen-backup.timer)"
expect_request 201 POST /gen_key "$(key_request one)"
expect_request 201 POST /gen_key "$(key_request two)"

! in_container systemctl start "$backup" 2>/dev/null || fail "it did not fail without a recipient"

# The secret key of the recipient is on this host only for the test.
secret=/root/recipient
in_container mkdir -m 0700 "$secret"
gpg=(in_container gpg --batch --quiet --homedir "$secret")
"${gpg[@]}" --passphrase '' --quick-generate-key backup@example.org future-default
in_container mkdir -p /etc/copr-keygen
in_container chmod 0755 /etc/copr-keygen
"${gpg[@]}" --export --armor | in_container tee /etc/copr-keygen/backup-recipient.asc >/dev/null
in_container systemctl start "$backup" || fail "$(journal --unit="$backup" --output=cat)"

to=/var/lib/copr-keygen-backup
archive=$(in_container find "$to" -type f)
expect_match "name of the archive" "^$to/copr-keygen-20[0-9]{6}T[0-9]{6}\.tar\.gpg\$" "$archive"
expect "who may read it" "600 copr-signer" "$(in_container stat -c '%a %U' "$archive")"
expect "who may look at it" "700 copr-signer" "$(in_container stat -c '%a %U' "$to")"
expect "keys in the archive" 2 \
    "$("${gpg[@]}" --decrypt "$archive" 2>/dev/null | in_container tar -t | grep -c '/pubring.kbx$')"

# Write to another place, as the comment in the unit says.
in_container mkdir -p /mnt/backup
in_container chown copr-signer /mnt/backup
drop_in "$backup" <<'UNIT'
[Unit]
RequiresMountsFor=/mnt/backup
[Service]
Environment=BACKUP_TO=/mnt/backup
ReadWritePaths=/mnt/backup
NoExecPaths=/mnt/backup
UNIT
in_container systemctl start "$backup" || fail "$(journal --unit="$backup" --output=cat)"
expect "archives in the other place" 1 "$(in_container find /mnt/backup -name '*.tar.gpg' | wc -l)"
