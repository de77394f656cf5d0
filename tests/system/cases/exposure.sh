# systemd-analyze security sees a tight sandbox
unit=/usr/lib/systemd/system/$service
report=$(in_container systemd-analyze security --offline=yes --no-pager --threshold=10 "$unit") ||
    fail "more exposed than 1.0: $(grep -v '^✓' <<<"$report")"
note "systemd $(in_container systemctl --version | awk 'NR == 1 { print $2 }'): $(grep -o 'Overall exposure.*' <<<"$report")"
