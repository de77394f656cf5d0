# systemd-analyze security sees a tight sandbox around every service
mapfile -t services < <(in_container find /usr/lib/systemd/system -name 'copr-keygen*.service' -printf '%f\n' | sort)
[ "${#services[@]}" -ge 2 ] || fail "found only these services: ${services[*]}"
for unit in "${services[@]}"; do
    report=$(in_container systemd-analyze security --offline=yes --no-pager --threshold=4 "/usr/lib/systemd/system/$unit") ||
        fail "$unit is more exposed than 0.4: $(grep -v '^✓' <<<"$report")"
    note "systemd $(in_container systemctl --version | awk 'NR == 1 { print $2 }'): $(grep -o 'Overall exposure.*' <<<"$report")"
done

# obs-signd listens on the network itself. Everything else is as tight.
printf '[Service]\nExecStart=/bin/true\n' | in_container tee /etc/systemd/system/signd.service >/dev/null
report=$(in_container systemd-analyze security --offline=yes --no-pager --threshold=20 /etc/systemd/system/signd.service) ||
    fail "signd.service is more exposed than 2.0: $(grep -v '^✓' <<<"$report")"
note "obs-signd in its drop-in: $(grep -o 'Overall exposure.*' <<<"$report")"
