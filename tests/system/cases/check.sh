# check names what is wrong with a host, with its remedy, and repairs what belongs to the wrong user

# check STATUS OPTION...: runs check as root, expects that exit status, and keeps the output in $page.
check() {
    local wanted=$1 got=0
    shift
    page=$(in_container copr-keygen check "$@" 2>&1) || got=$?
    [ "$got" = "$wanted" ] || fail "check $*: wanted status $wanted, got $got: $page"
}

# expect_line LEVEL TEXT [REMEDY]
expect_line() {
    local line
    line=$(grep -A 1 -F "  $1" <<<"$page" | grep -A 1 -F "$2") || fail "no line '$1 … $2' in: $page"
    expect_match "remedy of $2" "${3-}" "$line"
}

# type_in TEXT: runs the remedy of the line with this text, exactly as it is printed.
type_in() {
    local remedy
    remedy=$(grep -A 1 -F "$1" <<<"$page" | sed -n 's/^ *-> //p' | head -1)
    note "$remedy"
    in_container sh -c "$remedy" || fail "$remedy"
}

# Stands in for obs-signd, which Debian does not have: listens on the address of obs-signd.
in_container tee /usr/bin/stand-in >/dev/null <<'END'
#!/usr/bin/perl
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1:5167', ReuseAddr => 1) or die;
while (my $client = $socket->accept) { close $client }
END
in_container chmod 0755 /usr/bin/stand-in
in_container tee /etc/systemd/system/signd.service >/dev/null <<'END'
[Unit]
Description=Stand-in for obs-signd
[Service]
ExecStart=/usr/bin/stand-in
END
in_container cp /usr/share/doc/copr-keygen/docs/sign.conf /etc/sign.conf
in_container systemctl daemon-reload

# Freshly installed, before anything else is done.
expect_request 201 POST /gen_key "$(key_request first)"
check 1
expect_line FAILED 'copr-keygen-prolong.timer: is not set' 'enable --now copr-keygen-prolong.timer'
expect_line FAILED 'signd.service: does not run' 'systemctl start signd.service'
expect_line FAILED '127.0.0.1:5167: signd does not answer' 'systemctl start signd.service'
in_container systemctl --quiet enable --now copr-keygen-prolong.timer copr-keygen-pool.path 2>&1
in_container systemctl start signd.service
wait_for 10 in_container sh -c "ss --listening --tcp --numeric --no-header | grep -q :5167"

in_container systemctl stop "$service"
before=$(in_container find "$state" -printf '%p %i %m %u %s %T@\n' | sort)
check 0
# This fails from 2029-02-01 on: the default of key_length has to change by then.
expect_match "end of the page" 'This host is well\.$' "$page"
expect_line note 'key_length: 2048: apt 3 refuses' 'set key_length = 4096'
# The day comes from apt's own policy, on releases where apt has one.
policy=/usr/share/apt/default-sequoia.config
if in_container test -e "$policy"; then
    day=$(in_container sed -n 's/^rsa2048 *= *\([0-9-]*\).*/\1/p' "$policy")
    expect_line note "keys: 1 RSA key has less than 3072 bits; from $day on apt 3 refuses"
fi
for words in 'copr-keygen.socket: listens' 'prolongs next at' 'signd.service: runs' 'signd answers'; do
    expect_line ok "$words"
done
note "$(grep -c '^  ok ' <<<"$page") lines are well"
as_signer copr-keygen check >/dev/null || fail "as copr-signer: $(as_signer copr-keygen check 2>&1)"
expect "what check changed" "" \
    "$(diff <(echo "$before") <(in_container find "$state" -printf '%p %i %m %u %s %T@\n' | sort) || true)"
expect_state "$service" inactive
check 0 --deep
expect_empty "$state/staging"

# Files that belong to root, as after gpg was run by hand, and a link that root must not follow.
home=$state/keys/$(name_email first)
in_container chown root: "$home/pubring.kbx" "$state/phrases"
in_container chmod 0644 "$home/passphrase"
in_container ln -s /etc/passwd "$home/strange"
check 1
expect_line FAILED 'pubring.kbx: belongs to root, not to copr-signer' '-> copr-keygen check --repair'
expect_line FAILED 'passphrase: has mode 0644 instead of 0600' 'copr-keygen check --repair'
check 0 --repair
expect_line repaired 'pubring.kbx: belongs to root'
in_container rm "$home/strange"
expect "files of others in the state" "" "$(in_container find "$state" ! -user copr-signer ! -type l)"
expect "owner of /etc/passwd" "root 644" "$(in_container stat --format '%U %a' /etc/passwd)"
check 0 --deep
# The state directory itself.
in_container chown root: "$state"
check 1
expect_line FAILED "$state: belongs to root" '-> copr-keygen check --repair'
check 0 --repair
expect "owner of the state" copr-signer "$(in_container stat --format %U "$state")"
expect_whole_key first

# Units that are not as they should be.
in_container systemctl stop "$socket"
check 1
expect_line FAILED "$socket: does not listen" "systemctl restart $socket"
in_container systemctl start "$socket"
drop_in "$service" <<'END'
[Service]
Environment=COPR_KEYGEN_JOBS=1
END
check 0
expect_line warning "$service: has settings in its Environment=" config.toml
in_container rm "/run/systemd/system/$service.d/test.conf"
in_container systemctl daemon-reload

# The drop-ins that set user and sandbox are lost: everything works, but as root.
signd_drop_in=/usr/lib/systemd/system/signd.service.d/10-copr-keygen.conf
in_container mv "$signd_drop_in" /root/
in_container systemctl daemon-reload
in_container systemctl restart signd.service
check 1
expect_line FAILED 'signd.service: runs as root, not as copr-signer, and without a sandbox' 'install -D -m 0644'
expect_line FAILED 'runs as root, not as copr-signer' 'systemctl restart signd.service'
type_in 'signd.service: runs as root'
wait_for 10 in_container sh -c "ss --listening --tcp --numeric --no-header | grep -q :5167"
check 0
in_container mv /root/10-copr-keygen.conf "$signd_drop_in"
in_container rm -r /etc/systemd/system/signd.service.d
for unit in copr-keygen copr-keygen-; do
    in_container mv "/usr/lib/systemd/system/$unit.service.d/10-sandbox.conf" "/root/$unit"
    in_container systemctl daemon-reload
    check 1
    expect_line FAILED 'service: runs as root, not as copr-signer, and without a sandbox: 10-sandbox.conf' 'install copr-keygen again'
    in_container mv "/root/$unit" "/usr/lib/systemd/system/$unit.service.d/10-sandbox.conf"
done
in_container systemctl daemon-reload
check 0

# A service has failed, and the cause was mended afterwards.
in_container mkdir -p /etc/copr-keygen
in_container tee /etc/copr-keygen/config.toml >/dev/null <<<'expire = "soon"'
in_container systemctl start "$service" 2>/dev/null && fail "it starts with wrong settings"
wait_for 20 is "$service" failed
in_container rm /etc/copr-keygen/config.toml
forget_starts
check 1
expect_line FAILED "$service: has failed (exit-code, status 78)" 'journalctl'
type_in "$service: has failed"
check 0

# A wrong setting.
in_container mkdir -p /etc/copr-keygen
in_container tee /etc/copr-keygen/config.toml >/dev/null <<<'jobs = "many"'
check 78
expect_line FAILED 'configuration: jobs = "many"' 'correct it where it is set'
in_container rm /etc/copr-keygen/config.toml

# /etc/gnupg configures every gpg of the host. Our own options overrule a setting there, or check names it.
in_container mkdir -p /etc/gnupg
in_container tee /etc/gnupg/gpg-agent.conf >/dev/null <<<'no-allow-loopback-pinentry'
expect_request 201 POST /gen_key "$(key_request overruled)"
check 0
in_container tee /etc/gnupg/common.conf >/dev/null <<<'use-keyboxd'
page=$(in_container copr-keygen check 2>&1 || true)
type_in '/etc/gnupg/common.conf: says use-keyboxd'
expect_request 201 POST /gen_key "$(key_request named)"
check 0
in_container rm -r /etc/gnupg

# The signer of copr-keygen replaces obs-signd, and stops it.
in_container systemctl --quiet enable --now "$signer_socket" 2>&1
expect_state signd.service inactive
in_container rm /etc/sign.conf
check 0
for words in "$signer_socket: listens" '127.0.0.1:5167: copr-keygen signd answers' 'signs as copr-keygen signd does, verified apart'; do
    expect_line ok "$words"
done
in_container rm "$state/phrases/$(name_email first)"
check 0
expect_line note 'it matters to obs-signd only, which does not sign here'
check 0 --repair
in_container systemctl stop "$signer_socket" "$signer"
check 1
expect_line FAILED "$signer_socket: does not listen"
type_in "$signer_socket: does not listen"
check 0
in_container systemctl --quiet disable --now "$signer_socket" 2>&1
check 1
expect_line FAILED "$signer_socket: is not enabled, and obs-signd does not run"
type_in "$signer_socket: is not enabled, and obs-signd does not run"
check 0

# If both are enabled, it is up to the next boot which of them runs.
in_container sh -c 'printf "[Install]\nWantedBy=multi-user.target\n" >>/etc/systemd/system/signd.service'
in_container systemctl --quiet enable signd.service 2>&1
check 1
expect_line FAILED "$signer_socket: is enabled or runs beside signd.service" 'systemctl disable --now signd.service'
type_in "$signer_socket: is enabled or runs beside"
check 0

# A full disk.
in_container systemctl stop "$service"
in_container mount -t tmpfs -o size=2m,mode=0700,uid=copr-signer,gid=copr-signer tmpfs "$state"
in_container systemd-tmpfiles --create copr-keygen.conf
expect_request 201 POST /gen_key "$(key_request second)"
check 0
expect_line warning "$state: " 'make room'
free=$(in_container stat --file-system --format '%f' "$state")
in_container head -c $((free * 4096 - 65536)) /dev/zero | in_container tee "$state/filler" >/dev/null
check 1
expect_line FAILED 'no key can be made' 'make room; requests are answered 503'
in_container dd if=/dev/zero of="$state/filler2" bs=4096 status=none 2>/dev/null || true
check 1 --deep
expect_line FAILED 'no space left' 'make room, then try again'
expect_empty "$state/staging"
in_container rm "$state/filler" "$state/filler2"
check 0 --deep
