# state and keys are private to copr-signer, which the service runs as, and no agent stays
expect_request 201 POST /gen_key "$(key_request modes)"

# Everything in the state that is not as it should be, as "type mode owner group path".
odd=$(in_container find "$state" -printf '%y %m %u %g %p\n' |
    grep -Ev '^(d 700|f 600|l 777) copr-signer copr-signer ' || true)
expect "files with other modes or owners" "" "$odd"

for directory in '' keys gnupg gnupg/private-keys-v1.d phrases pool staging; do
    in_container test -d "$state/$directory" || fail "no directory $state/$directory"
done
expect_empty "$state/staging"

home=$state/keys/$(name_email modes)
leftovers=$(in_container find "$home" -name '*~' -o -name 'S.*' -o -name '*.lock' -o -name '.#*' -o -name trustdb.gpg)
expect "things gpg left in the published home" "" "$leftovers"

process=$(in_container cat "/proc/$(property MainPID)/status")
signer=$(in_container id -u copr-signer)
expect_match "user of the process" $'\nUid:\t'"$signer"$'\t'"$signer"$'\t'"$signer"$'\t' "$process"
expect_match "capabilities of the process" $'\nCapEff:\t0+\n' "$process"
expect_match "seccomp of the process" $'\nSeccomp:\t2\n' "$process"
expect_match "core file limit of the process" $'\nMax core file size +0 +0 ' "$(in_container cat "/proc/$(property MainPID)/limits")"
expect_match "login shell" 'nologin$' "$(in_container getent passwd copr-signer)"

wait_for 5 no_process gpg-agent || fail "a gpg-agent stayed: $(in_container pgrep -a gpg-agent)"
expect "processes of copr-signer" 1 "$(in_container pgrep --count --euid copr-signer)"
