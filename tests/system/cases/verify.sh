# systemd-analyze verify has nothing to say about any unit, and only the signer loads libcrypto
mapfile -t units < <(in_container find /usr/lib/systemd/system -name '*copr-keygen*' ! -name '*.conf' -type f -printf '%f\n')
[ "${#units[@]}" -ge 4 ] || fail "found only these units: ${units[*]}"
for unit in "${units[@]}"; do
    # systemd-analyze may complain and still exit with 0. The tree has no man, which would look for the pages of
    # Documentation=.
    expect "systemd-analyze verify $unit" "" "$(in_container systemd-analyze verify --man=no "$unit" 2>&1 || echo "exit status $?")"
    # A oneshot service that waits for ever would keep its timer, or what comes after it at boot, from ever
    # starting again.
    if [ "$(property Type "$unit")" = oneshot ]; then
        [ "$(property TimeoutStartUSec "$unit")" != infinity ] || fail "$unit has no TimeoutStartSec="
    fi
done
# obs-signd starts copr-keygen anew for every signature, and systemd starts it after every pause. Loading
# libcrypto would take most of that time.
libraries=$(in_container ldd /usr/bin/copr-keygen)
[[ $libraries != *libcrypto* ]] || fail "copr-keygen loads libcrypto, which is for copr-keygen-signd"
expect "libcrypto of copr-keygen-signd" 1 "$(in_container ldd /usr/bin/copr-keygen-signd | grep -c libcrypto)"
note "${units[*]}"
