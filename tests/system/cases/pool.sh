# the pool is filled at boot and after every claim, at idle priority, and stops at once when told to
pool=copr-keygen-pool.service
in_container mkdir -p /etc/copr-keygen
in_container tee /etc/copr-keygen/config.toml >/dev/null <<<'pool = "2048:3"'

# ready COUNT: whether the pool holds COUNT keys and is not being filled.
ready() {
    [ "$(in_container find "$state/pool/rsa2048" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" = "$1" ] &&
        is "$pool" inactive
}

in_container systemctl --quiet enable --now copr-keygen-pool.service copr-keygen-pool.path 2>&1
wait_for 30 ready 3
keygrips=$(in_container ls "$state/pool/rsa2048")

expect_request 201 POST /gen_key "$(key_request first)"
expect_whole_key first
keygrip=$(in_container ls "$state/keys/$(name_email first)/private-keys-v1.d")
expect_match "keys that were in the pool" "${keygrip%.key}" "$keygrips"
wait_for 30 ready 3

# Make more claims than the number of times that systemd usually lets a unit start.
for number in 1 2 3 4 5 6 7 8; do
    expect_request 201 POST /gen_key "$(key_request "many$number")"
done
wait_for 60 ready 3
expect_state copr-keygen-pool.path active
expect "failed units" "" "$(in_container systemctl list-units --failed --plain --no-legend 'copr-keygen*')"

# While it works on a long job, it has idle priority, and it ends at once when it is stopped.
in_container tee /etc/copr-keygen/config.toml >/dev/null <<<'pool = "4096:100"'
in_container systemctl start "$pool"
wait_for 10 is_process gpg-agent
expect_match "scheduling policy" SCHED_IDLE "$(in_container chrt --pid "$(in_container pgrep --exact --newest gpg)")"
begun=$(date +%s%N)
in_container systemctl stop "$pool"
took=$((($(date +%s%N) - begun) / 1000000))
[ "$took" -lt 5000 ] || fail "it took $took ms to stop"
expect "result of the stopped filler" success "$(property Result "$pool")"
no_process gpg-agent || fail "an agent is left"
expect_empty "$state/staging"
note "stopped after $took ms"
