# systemd-analyze verify has nothing to say about any unit
mapfile -t units < <(in_container find /usr/lib/systemd/system -name '*copr-keygen*' ! -name '*.conf' -type f -printf '%f\n')
[ "${#units[@]}" -ge 4 ] || fail "found only these units: ${units[*]}"
for unit in "${units[@]}"; do
    # It may complain and still exit with 0. The tree has no man, which would look for the pages of Documentation=.
    expect "systemd-analyze verify $unit" "" "$(in_container systemd-analyze verify --man=no "$unit" 2>&1 || echo "exit status $?")"
    # One that waits for ever keeps its timer, or what comes after it at boot, from ever starting again.
    if [ "$(property Type "$unit")" = oneshot ]; then
        [ "$(property TimeoutStartUSec "$unit")" != infinity ] || fail "$unit has no TimeoutStartSec="
    fi
done
note "${units[*]}"
