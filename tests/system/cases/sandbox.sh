# the sandbox of every service holds

# Prints one line per attempt: what was tried, and "can" or "cannot".
in_container tee /usr/bin/probe >/dev/null <<'END'
#!/bin/sh
try() {
    what=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "$what: can"; else echo "$what: cannot"; fi
}
writable() { touch "$1/probe" && rm "$1/probe"; }
runnable() { cp /bin/true "$1/probe" && "$1/probe"; status=$?; rm "$1/probe"; return "$status"; }
try "write to the state" writable /var/lib/copr-keygen/staging
try "write to the keys" writable /var/lib/copr-keygen/keys
try "write to /tmp" writable /tmp
try "write to the journal" test -S /run/systemd/journal/socket
try "run gpg" gpg --version
try "open a TCP socket" perl -MSocket -e 'socket(my $s, AF_INET, SOCK_STREAM, 0) or exit 1'
try "open a TCP socket, IPv6" perl -MSocket -e 'socket(my $s, AF_INET6, SOCK_STREAM, 0) or exit 1'
try "open a netlink socket" perl -MSocket -e 'socket(my $s, 16, SOCK_RAW, 0) or exit 1'
try "reach the service over TCP" curl --silent --fail --max-time 5 http://127.0.0.1:5003/ping
try "read /etc/shadow" cat /etc/shadow
try "read a home directory" cat /home/someone/secret
try "see the /tmp of others" cat /tmp/secret
try "see PID 1" cat /proc/1/cmdline
try "see kernel settings" cat /proc/sys/kernel/hostname
try "run a program it has written" runnable /var/lib/copr-keygen/staging
try "run a program from /tmp" runnable /tmp
try "make a user namespace" unshare --user true
try "make a mount" mount -t tmpfs tmpfs /tmp
try "make a setuid program" sh -c 'cp /bin/true /tmp/s && chmod u+s /tmp/s'
try "raise its priority" renice -n -5 -p $$
for directory in /etc /usr /var/lib /var/log /run /dev/shm /root /home /sys /boot; do
    try "write to $directory" writable "$directory"
done
END
in_container chmod 0755 /usr/bin/probe
in_container sh -c 'mkdir -m 0755 /home/someone; echo x >/home/someone/secret; echo x >/tmp/secret'

# Outside of the sandbox every attempt succeeds, except writing to /sys and /boot. So only the sandbox can make
# the others fail.
expect "attempts that fail outside the sandbox" "" \
    "$(in_container probe | grep ': cannot' | grep -vE '^write to /(sys|boot)' || true)"

# probe_in UNIT ALLOWED...: runs the probe in the unit itself, which is changed only in what it runs.
probe_in() {
    local unit=$1
    shift
    drop_in "$unit" <<'END'
[Service]
Type=oneshot
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/probe
END
    in_container systemctl stop "$unit" 2>/dev/null # the probe above has started the service
    in_container systemctl start "$unit"
    journal --unit="$unit" --output=cat | grep -E ': (can|cannot)$' >"$container_dir/probes"
    expect "attempts that succeed inside the sandbox of $unit" \
        "$(printf '%s: can\n' "$@")" \
        "$(grep ': can$' "$container_dir/probes")"
    note "$unit: $(grep -c ': cannot$' "$container_dir/probes") attempts to get out failed"
}

# copr-keygen-backup.service does not start without this file.
in_container sh -c 'mkdir -p /etc/copr-keygen && touch /etc/copr-keygen/backup-recipient.asc'
mapfile -t services < <(in_container find /usr/lib/systemd/system -name 'copr-keygen*.service' -printf '%f\n')
[ "${#services[@]}" -ge 2 ] || fail "found only these services: ${services[*]}"
for unit in "${services[@]}"; do
    # The signer only reads the keys. The other services write them.
    allowed=("write to the state" "write to the keys" "write to /tmp" "write to the journal" "run gpg")
    [ "$unit" != "$signer" ] || unset 'allowed[1]'
    probe_in "$unit" "${allowed[@]}"
done
