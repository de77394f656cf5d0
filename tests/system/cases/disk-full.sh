# a full disk gives 503 and nothing half-made, and all is well once there is space again
in_container mount -t tmpfs -o size=2m,mode=0700,uid=copr-signer,gid=copr-signer tmpfs "$state"
in_container systemd-tmpfiles --create copr-keygen.conf
expect_request 201 POST /gen_key "$(key_request before)"

# leave_free KIB: fills the disk until only so much space is free.
leave_free() {
    local free
    in_container rm -f "$state/filler"
    free=$(in_container stat --file-system --format '%f' "$state")
    in_container head -c $((free * 4096 - $1 * 1024)) /dev/zero | in_container tee "$state/filler" >/dev/null
}

# expect_nothing_made PROJECT
expect_nothing_made() {
    local made
    for made in "keys/$(name_email "$1")" "phrases/$(name_email "$1")"; do
        in_container test ! -e "$state/$made" || fail "there is $made"
    done
    expect_empty "$state/staging"
}

# Begin with too little space and add more until a key can be made.
kib=0
while :; do
    leave_free "$kib"
    request POST /gen_key "$(key_request "full$kib")"
    [ "$status" = 503 ] || break
    expect_match "headers" $'\nRetry-After: [0-9]+' "$headers"
    why=$body
    expect_nothing_made "full$kib"
    kib=$((kib + 16))
done
expect "answer with $kib KiB left" 201 "$status"
expect_whole_key "full$kib"
note "refused with up to $((kib - 16)) KiB left: $why"

# The space is enough at the beginning, but gone by the time gpg writes: its agent is stopped until the disk is
# full. The key is long, so that the agent is still searching for primes when it is stopped.
refused=0
for kib in 0 4 8 12 16 24 32; do
    in_container rm "$state/filler"
    (fetch "$container_dir/late" POST /gen_key "$(key_request "late$kib" '"key_length": 4096')" >"$container_dir/late.status") &
    wait_for 10 is_process gpg-agent
    agent=$(in_container pgrep --exact gpg-agent)
    in_container kill -STOP "$agent"
    leave_free "$kib"
    in_container kill -CONT "$agent"
    wait
    status=$(cat "$container_dir/late.status")
    case $status in
        201) expect_whole_key "late$kib" ;;
        503)
            refused=$((refused + 1))
            expect_match "headers" $'\nRetry-After: [0-9]+' "$(tr -d '\r' <"$container_dir/late.head")"
            expect_nothing_made "late$kib"
            ;;
        *) fail "$kib KiB left in the middle: $status $(cat "$container_dir/late.body")" ;;
    esac
done
[ "$refused" -gt 0 ] || fail "the disk was never too full in the middle"
note "refused in the middle: $refused of 7"
dangling=$(in_container find "$state/gnupg" "$state/phrases" -xtype l)
expect "links to nothing" "" "$dangling"

in_container rm "$state/filler"
expect_request 201 POST /gen_key "$(key_request late0)"
expect_whole_key late0
expect_request 200 POST /gen_key "$(key_request before)"

# prolong keeps the old certificate as it is until there is room for the new one.
expect_request 201 POST /gen_key "$(key_request aging '"expire": 30')"
pubring="$state/keys/$(name_email aging)/pubring.kbx"
old=$(in_container sha256sum "$pubring")
kib=0
while :; do
    leave_free "$kib"
    ! as_signer copr-keygen prolong 2>"$container_dir/words" || break
    expect_match "what it says" "no space left" "$(cat "$container_dir/words")"
    expect "certificate with $kib KiB left" "$old" "$(in_container sha256sum "$pubring")"
    expect_empty "$state/staging"
    kib=$((kib + 16))
done
[ "$kib" -gt 0 ] || fail "the disk was not too full to prolong"
note "not prolonged with up to $((kib - 16)) KiB left"
expect "self-signatures" 2 \
    "$(as_signer copr-keygen show --json "$(name_email aging)" | grep -c '"good": true')"
expect_whole_key aging
