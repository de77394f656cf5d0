# Sourced by the tests that are shell scripts.
# shellcheck shell=bash

# wait_for SECONDS COMMAND...: repeats COMMAND, without its output, until it succeeds. Fails after SECONDS.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep 0.05
    done
}
