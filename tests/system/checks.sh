# The functions that the cases are written with. Sourced by one-case.sh, after container.sh.
# shellcheck shell=bash

service=copr-keygen.service
socket=copr-keygen.socket
signer=copr-keygen-signd.service
signer_socket=copr-keygen-signd.socket
state=/var/lib/copr-keygen

# The answer to the latest request.
status='' headers='' body=''

# trace: prints the lines of the case, and of the script that runs it, that led here, innermost first.
trace() {
    local frame file
    for ((frame = 1; frame < ${#FUNCNAME[@]}; frame++)); do
        file=${BASH_SOURCE[frame]##*/}
        case $file in
            checks.sh | container.sh) ;;
            *) echo "    at $file:${BASH_LINENO[frame - 1]}" ;;
        esac
    done >&2
}

# fail TEXT...: ends the case. In a subshell it ends only the subshell, with exit status 1.
fail() {
    echo "FAILED: $*" >&2
    trace
    exit 1
}

# note TEXT...: writes a line that is shown even if the case passes.
note() {
    echo "$*" >>"$notes"
}

# expect WHAT WANTED GOT
expect() {
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}

# expect_match WHAT REGEX TEXT
expect_match() {
    [[ $3 =~ $2 ]] || fail "$1: no match for '$2' in '$3'"
}

# fetch FILE METHOD PATH [BODY]: sends a request through the TCP socket. It writes the head of the answer to
# FILE.head and the body to FILE.body, and prints the status (000: no answer).
fetch() {
    local file=$1 method=$2 path=$3
    in_network curl --disable --noproxy '*' --silent --show-error --max-time 60 \
        --request "$method" ${4+--data-binary "$4"} --dump-header "$file.head" --output "$file.body" \
        --write-out '%{http_code}' "http://127.0.0.1:5003$path" || true
}

# ask [CURL OPTION]... PATH: sends a request to the loopback address and prints only the status (000: no answer).
ask() {
    in_network curl --disable --noproxy '*' --silent --max-time 60 --output /dev/null \
        --write-out '%{http_code}' "${@:1:$#-1}" "http://127.0.0.1:5003${!#}" || true
}

# request METHOD PATH [BODY]: sends a request and sets status, headers and body.
request() {
    local file=$container_dir/answer
    rm -f "$file.head" "$file.body"
    status=$(fetch "$file" "$@")
    headers=$(tr -d '\r' <"$file.head" || true)
    body=$(cat "$file.body" 2>/dev/null || true)
}

# expect_request STATUS METHOD PATH [BODY]
expect_request() {
    local wanted=$1
    shift
    request "$@"
    [ "$status" = "$wanted" ] || fail "$*: wanted $wanted, got $status: $headers $body"
}

# name_email PROJECT
name_email() {
    echo "user#$1@copr.example.org"
}

# key_request PROJECT [JSON MEMBERS]: prints a body for POST /gen_key.
key_request() {
    printf '{"name_real": "user_%s", "name_email": "%s"%s}' "$1" "$(name_email "$1")" "${2:+, $2}"
}

# property NAME [UNIT]: prints a property of the unit, by default of the service.
property() {
    in_container systemctl show --value --property="$1" "${2:-$service}"
}

# status_of PID FIELD: prints a field of /proc/PID/status of a process in the container, see proc(5).
status_of() {
    in_container sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"
}

# is UNIT STATE...: whether the unit is in one of the states.
is() {
    local unit=$1 now wanted
    now=$(property ActiveState "$unit")
    shift
    for wanted; do
        [ "$now" != "$wanted" ] || return 0
    done
    return 1
}

# forget_starts: waits until TriggerLimitIntervalSec= of the socket has passed, so that earlier failed starts do
# not count against the next ones. Neither a restart nor, from systemd 255 on, a daemon-reload resets that count.
forget_starts() {
    sleep 3
}

expect_state() {
    expect "state of $1" "$2" "$(property ActiveState "$1")"
}

# drop_in UNIT: writes standard input to a drop-in of the unit.
drop_in() {
    in_container mkdir -p "/run/systemd/system/$1.d"
    in_container tee "/run/systemd/system/$1.d/test.conf" >/dev/null
    in_container systemctl daemon-reload
}

# as_signer COMMAND...: runs a command in the container as the user that owns the keys.
as_signer() {
    in_container setpriv --reuid=copr-signer --regid=copr-signer --init-groups env HOME="$state" "$@"
}

# journal ARGUMENTS...: runs journalctl in the container, after journald has written all pending messages.
journal() {
    in_container journalctl --sync
    in_container journalctl --boot --quiet --no-pager "$@"
}

# is_process NAME: whether a process with this name runs in the container.
is_process() {
    in_container pgrep --exact "$1"
}

# no_process NAME
no_process() {
    ! is_process "$1"
}

# expect_empty DIRECTORY...: expects that the directories, in the container, are empty.
expect_empty() {
    local found
    found=$(in_container find "$@" -mindepth 1)
    expect "content of $*" "" "$found"
}

# expect_whole_key PROJECT: expects that the home of the key is complete, gpg can use the key, and obs-signd will
# find it.
expect_whole_key() {
    local home keygrip listing
    home=$state/keys/$(name_email "$1")
    listing=$(as_signer gpg --homedir "$home" --batch --trust-model always --with-colons \
        --with-keygrip --list-secret-keys)
    as_signer gpgconf --homedir "$home" --kill gpg-agent
    expect_match "secret key of $1" "sec:[^:]*:[0-9]+:1:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:scSC:" "$listing"
    expect_match "user ID of $1" "uid:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:user_$1 <$(name_email "$1")>:" "$listing"
    keygrip=$(awk -F: '$1 == "grp" { print $10; exit }' <<<"$listing")
    in_container test -s "$home/private-keys-v1.d/$keygrip.key"
    in_container test -s "$home/passphrase"
    expect "private key of $1 as obs-signd sees it" \
        "$(in_container realpath "$home/private-keys-v1.d/$keygrip.key")" \
        "$(in_container realpath "$state/gnupg/private-keys-v1.d/$keygrip.key")"
    expect "phrase of $1 as obs-signd sees it" "$(in_container realpath "$home/passphrase")" \
        "$(in_container realpath "$state/phrases/$(name_email "$1")")"
}

# other_host_up: adds a host with the address 192.0.2.20 beside the container, which gets 192.0.2.10.
other_host_up() {
    in_container sh -euc '
        ip netns add client
        ip link add inside type veth peer name outside netns client
        ip address add 192.0.2.10/24 dev inside
        ip link set inside up
        ip -n client address add 192.0.2.20/24 dev outside
        ip -n client link set outside up'
}

# open_to_other_host: lets that host reach the socket, as docs/backend.conf does. The caller must restart the
# socket.
open_to_other_host() {
    drop_in "$socket" <<'END'
[Socket]
ListenStream=192.0.2.10:5003
FreeBind=yes
IPAddressDeny=any
IPAddressAllow=localhost 192.0.2.20
END
}

# from_other_host [CURL OPTION]... PATH: sends a request from that host to 192.0.2.10 and prints the status (000:
# no answer). The body is in /root/answer in the container.
from_other_host() {
    in_container ip netns exec client curl --disable --noproxy '*' --silent --max-time 30 --output /root/answer \
        --write-out '%{http_code}' "${@:1:$#-1}" "http://192.0.2.10:5003${!#}" || true
}

# stand_in_for_signd UNIT PROJECT [PHRASES]: makes a unit that signs /etc/hostname with the key of a project. It
# stands in for obs-signd, which Debian does not have. It makes the same calls under the same unit name, and sets
# nothing that would get in the way of the drop-in.
stand_in_for_signd() {
    local phrases=${3:-$state/phrases}
    in_container tee "/etc/systemd/system/$1" >/dev/null <<END
[Unit]
Description=Stand-in for obs-signd
[Service]
Type=oneshot
Environment=SIGND_PHRASES=$phrases SIGND_GPG=/usr/bin/gpg-copr
ExecStartPre=/bin/sh -c '! touch $phrases/probe && ! touch $state/keys/probe && ! touch /etc/probe'
ExecStart=/usr/lib/copr-keygen-test/signd-client sign $(name_email "$2") /etc/hostname
StandardOutput=truncate:/root/signature
StandardError=journal
END
    in_container systemctl daemon-reload
}

# expect_signature UNIT CERTIFICATE: starts the unit, which signs, and verifies the signature with gpgv of this
# host. CERTIFICATE is a file on this host.
expect_signature() {
    in_container rm -f /root/signature
    in_container systemctl start "$1" || fail "$(journal --unit="$1" --output=cat)"
    expect "user of $1" copr-signer "$(property User "$1")"
    in_container cat /root/signature >"$container_dir/signature"
    in_container cat /etc/hostname >"$container_dir/signed"
    gpgv --keyring "$2" "$container_dir/signature" "$container_dir/signed" 2>&1 || fail "gpgv on the signature of $1"
}

# give_passphrase_key KEY: installs the credential that seals passphrases, for all units from now on. It is
# encrypted if the container can do that. Sets encrypted to `yes`, or to `no` with the reason.
give_passphrase_key() {
    local store=/etc/credstore.encrypted
    take_passphrase_key
    in_container mkdir -p -m 0700 "$store" /etc/credstore
    if in_container systemd-creds encrypt --with-key=host --name=passphrase-key - "$store/passphrase-key" \
        <<<"$1" 2>"$container_dir/creds" &&
        [ "$(in_container systemd-creds decrypt --name=passphrase-key "$store/passphrase-key" - 2>>"$container_dir/creds")" = "$1" ]; then
        encrypted=yes
    else
        in_container rm -f "$store/passphrase-key"
        in_container sh -c 'umask 077; cat >/etc/credstore/passphrase-key' <<<"$1"
        encrypted="no: $(tail -1 "$container_dir/creds")"
    fi
}

take_passphrase_key() {
    in_container rm -f /etc/credstore.encrypted/passphrase-key /etc/credstore/passphrase-key
}

# with_passphrase_key MODE...: runs a mode of copr-keygen with the credential, as the documentation does.
with_passphrase_key() {
    in_container systemd-run --quiet --pipe --wait --property=LoadCredentialEncrypted=passphrase-key copr-keygen "$@"
}

# sign_client ARGUMENTS...: runs a client of the signer in the container.
sign_client() {
    in_container /usr/lib/copr-keygen-test/sign-client "$@"
}

# expect_signed PROJECT [ADDRESS [COMMAND...]]: has the signer sign /etc/hostname and verifies the signature with
# gpgv of this host. COMMAND starts the client, for example in another network namespace.
expect_signed() {
    local address=${2:-127.0.0.1:5167} keys
    in_container "${@:3}" /usr/lib/copr-keygen-test/sign-client "$address" sign "$(name_email "$1")" /etc/hostname \
        >"$container_dir/signature" 2>"$container_dir/refusal" ||
        fail "no signature with the key of $1: $(cat "$container_dir/refusal")"
    in_container cat /etc/hostname >"$container_dir/signed"
    keys=$(certificate "$1")
    gpgv --keyring "$keys" "$container_dir/signature" "$container_dir/signed" >"$container_dir/gpgv" 2>&1 ||
        fail "gpgv on the signature with the key of $1: $(cat "$container_dir/gpgv")"
}

# expect_refusal REGEX ADDRESS ARGUMENTS...: expects that the signer refuses, and that its message to the client
# matches REGEX.
expect_refusal() {
    local words
    if words=$(sign_client "${@:2}" 2>&1 >/dev/null); then
        fail "the signer did not refuse: ${*:2}"
    fi
    expect_match "refusal" "$1" "$words"
}

# listening_stand_in_for_signd UNIT: makes a unit that only listens on the address of obs-signd.
listening_stand_in_for_signd() {
    in_container tee "/etc/systemd/system/$1" >/dev/null <<'END'
[Unit]
Description=Stand-in for obs-signd
[Service]
ExecStart=/usr/bin/perl -MIO::Socket::INET -e '$$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:5167", Listen => 5, ReuseAddr => 1) or die; sleep'
[Install]
WantedBy=multi-user.target
END
    in_container systemctl daemon-reload
}

# certificate PROJECT: exports the certificate to a file, as obs-signd does, and prints the name of the file.
certificate() {
    as_signer gpg-copr --export "$(name_email "$1")" >"$container_dir/certificate"
    echo "$container_dir/certificate"
}
