# Boots a throw-away Debian with a real systemd and cleans up after it. Sourced. It never changes a tree, and it
# kills only the processes in the cgroup of its own container.
# shellcheck shell=bash

. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../wait_for.sh"

# The running container. container_boot sets all of these.
container_dir=       # scratch directory on the host
container_cgroup=    # cgroup that holds every process of it
container_booter=    # what boots it, and boots it again when it reboots
container_leader=    # its PID 1, as a process id of the host

# container_cgroup2: prints where cgroup v2 is mounted on this host.
container_cgroup2() {
    awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts
}

# container_boot TREE STAGE: boots TREE with the files of STAGE laid over it. The container writes to a tmpfs in a
# mount namespace of its own, which disappears with the container.
container_boot() {
    local tree=$1 stage=$2
    container_dir=$(mktemp -d "${TMPDIR:-/tmp}/copr-keygen-system.XXXXXX")
    container_cgroup=$(container_cgroup2)/copr-keygen-test-$$
    mkdir "$container_dir/root" "$container_dir/writes" "$container_cgroup"
    (
        echo "$BASHPID" >"$container_cgroup/cgroup.procs"
        cd "$container_dir" || exit
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
        # shellcheck disable=SC2016  # expanded by the inner shell
        exec unshare --mount --propagation private sh -euc '
            mount -t tmpfs -o mode=0755 tmpfs writes
            mkdir writes/upper writes/scratch
            mount -t overlay -o "lowerdir=$2:$1,upperdir=writes/upper,workdir=writes/scratch" overlay root
            status=133 # a reboot
            while [ "$status" = 133 ]; do
                status=0
                systemd-nspawn --quiet --directory=root --machine="$3" --register=no --keep-unit \
                    --private-network --system-call-filter="bpf @memlock" --console=pipe --boot || status=$?
            done
            exit "$status"
        ' sh "$tree" "$stage" "ck$$" </dev/null >"$container_dir/console.log" 2>&1
    ) &
    container_booter=$!
    disown "$container_booter"  # or the shell would report how it ended
    container_wait ''
}

# container_reboot: ends all processes of the container and boots it again, with everything that it has written.
container_reboot() {
    local before=$container_leader
    in_container systemctl --no-block reboot
    container_wait "$before"
}

# container_wait BEFORE: waits until the container is up and its PID 1 is not the process BEFORE.
container_wait() {
    if ! wait_for 60 container_find_leader "$1" || ! wait_for 60 container_is_up; then
        sed 's/^/console: /' "$container_dir/console.log" >&2
        echo "the container did not boot" >&2
        return 1
    fi
}

container_find_leader() {
    local nspawn leader
    nspawn=$(pgrep --parent "$container_booter" --exact systemd-nspawn) || return 1
    leader=$(pgrep --parent "$nspawn" --exact systemd) || return 1
    [ "$leader" != "$1" ] || return 1
    container_leader=$leader
}

# "degraded" is good enough: some units of a minimal Debian may fail in a container.
container_is_up() {
    case $(in_container systemctl is-system-running) in
        running | degraded) ;;
        *) return 1 ;;
    esac
}

# container_end: kills the container and removes what it has left on the host. It is safe to call at any time, and
# twice.
container_end() {
    local tries=100
    if [ -n "$container_cgroup" ] && [ -d "$container_cgroup" ]; then
        echo 1 >"$container_cgroup/cgroup.kill"
        while grep -qx 'populated 1' "$container_cgroup/cgroup.events" && [ $((tries -= 1)) -gt 0 ]; do
            sleep 0.05
        done
        find "$container_cgroup" -depth -type d -exec rmdir {} +
    fi
    if [ -n "$container_dir" ]; then
        rm -rf "$container_dir"
    fi
    container_cgroup='' container_dir=''
}

# in_container COMMAND...: runs a command in the container as root.
in_container() {
    nsenter --target "$container_leader" --all -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 SYSTEMD_PAGER= "$@"
}

# in_network COMMAND...: runs a program of the host in the network namespace of the container.
in_network() {
    nsenter --target "$container_leader" --net -- "$@"
}
