# gnupg/ is moved away and made anew under a running signd: check names it, and the remedy mends it as it stands

# Stands in for obs-signd, which Debian does not have: signs for every client that connects, and says how that
# went.
in_container tee /usr/bin/stand-in >/dev/null <<'END'
#!/usr/bin/perl
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1:5167', ReuseAddr => 1) or die;
while (my $client = $socket->accept) {
    my $said = `/usr/lib/copr-keygen-test/signd-client sign "\$USER_TO_SIGN" /etc/hostname 2>&1 >/dev/null`;
    print $client $? ? "failed: $said" : "signed\n";
    close $client;
}
END
in_container chmod 0755 /usr/bin/stand-in
in_container tee /etc/systemd/system/signd.service >/dev/null <<END
[Unit]
Description=Stand-in for obs-signd
[Service]
Environment=SIGND_PHRASES=$state/phrases SIGND_GPG=/usr/bin/gpg-copr USER_TO_SIGN=$(name_email first)
ExecStart=/usr/bin/stand-in
END
in_container cp /usr/share/doc/copr-keygen/docs/sign.conf /etc/sign.conf
in_container systemctl daemon-reload
in_container systemctl --quiet enable --now copr-keygen-prolong.timer copr-keygen-pool.path 2>&1

# signature: prints what signd says to a client.
signature() {
    in_container bash -c 'exec 3<>/dev/tcp/127.0.0.1/5167 && cat <&3'
}
listens() {
    in_container sh -c "ss --listening --tcp --numeric --no-header | grep -q :5167"
}

expect_request 201 POST /gen_key "$(key_request first)"
in_container systemctl start signd.service
wait_for 10 listens
expect "a signature" signed "$(signature)"
in_container copr-keygen check >/dev/null || fail "$(in_container copr-keygen check 2>&1)"

in_container mv "$state/gnupg" "$state/gnupg.aside"
page=$(in_container copr-keygen check --repair 2>&1) && fail "check is content: $page"
expect_match "check" 'gnupg: signd \(process [0-9]+\) cannot write to this directory' "$page"
expect_match "what a client is told" 'failed: .*Read-only file system.*systemctl restart signd' \
    "$(signature | tr '\n' ' ')"

remedy=$(grep -A 1 -F 'cannot write to this directory' <<<"$page" | sed -n 's/^ *-> //p')
note "$remedy"
in_container sh -c "$remedy"
wait_for 10 listens
expect "a signature" signed "$(signature)"
in_container copr-keygen check >/dev/null || fail "$(in_container copr-keygen check 2>&1)"

# If an agent in the unit of signd has not read all of its configuration, the remedy of check ends this agent as
# well.
in_container touch "$state/gnupg/gpg-agent.conf"
remedy=$(in_container copr-keygen check 2>&1 | grep -A 1 -F 'started before gpg-agent.conf was changed' |
    sed -n 's/^ *-> //p')
expect "remedy" "systemctl restart signd.service" "$remedy"
in_container sh -c "$remedy"
wait_for 10 listens
expect "a signature" signed "$(signature)"
page=$(in_container copr-keygen check 2>&1) || fail "$page"
expect_match "end of the page" 'This host is well\.$' "$page"
