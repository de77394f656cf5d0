#!/usr/bin/python3
"""What must hold of the linked policy: checks.py SUITE POLICY FILE_CONTEXTS STAGE README.

Asks setools and matchpathcon; the kernel of this machine is not asked, nothing is loaded.
"""

import os
import re
import subprocess
import sys

import setools

SUITE, POLICY, CONTEXTS, STAGE, README = sys.argv[1:]
STATE = "/var/lib/copr-keygen"
DOMAINS = ["copr_keygen_t", "copr_keygen_sign_t"]
STATE_TYPES = ["copr_keygen_var_lib_t", "copr_keygen_work_t", "copr_keygen_gnupg_t"]
WRITING = "write append create unlink rename setattr link add_name remove_name rmdir"

policy = setools.SELinuxPolicy(POLICY)
checked = 0
failed = 0


def verdict(what, wanted, got):
    global checked, failed
    checked += 1
    if wanted != got:
        failed += 1
        print(f"not ok - {SUITE}: {what}: wanted {wanted!r}, got {got!r}")


def types(symbol):
    """The types of a type or an attribute, by name."""
    return {str(one) for one in symbol.expand()}


def collect_rules():
    """(source, target, class, permissions, text) of every allow rule on our domains or types, also
    of those behind a boolean. Those of our own are in of_cluster instead."""
    ours = {str(one) for one in policy.types() if str(one).startswith("copr_keygen_")}
    # Names under which a rule may mean them; to expand every rule would take minutes.
    names = ours | {str(one) for one in policy.typeattributes() if ours & types(one)}
    found = []
    for rule in policy.terules():
        if rule.ruletype != setools.TERuletype.allow:
            continue
        if not {str(rule.source), str(rule.target)} & names:
            continue
        sources, targets = types(rule.source), types(rule.target)
        if ours & (sources | targets):
            if str(rule.target) == "self":
                targets = sources
            if rule_is_of_cluster(rule):
                of_cluster.append(f"{rule.source} {rule.target} {rule.tclass}: {' '.join(sorted(rule.perms))}")
                continue
            found.append((sources, targets, str(rule.tclass), set(map(str, rule.perms)), str(rule)))
    return found


def rule_is_of_cluster(rule):
    try:
        return str(rule.conditional) == "copr_keygen_cluster"
    except setools.exception.RuleNotConditional:
        return False


of_cluster = []
RULES = collect_rules()


def rules(source, target, tclass, permissions=""):
    wanted = set(permissions.split())
    return [
        text
        for sources, targets, its_class, perms, text in RULES
        if source in sources
        and (target is None or target in targets)
        and tclass == its_class
        and (not wanted or wanted & perms)
    ]


def never(source, target, tclass, permissions=""):
    got = rules(source, target, tclass, permissions)
    verdict(f"{source} must not have {permissions} of {tclass} on {target or 'anything'}", [], got)


def bound(domain):
    """The types of port the domain may have its sockets bound to."""
    return sorted(
        {
            target
            for sources, targets, tclass, perms, _ in RULES
            if domain in sources and tclass == "tcp_socket" and "name_bind" in perms
            for target in targets
        }
    )


def check_domains():
    for domain in DOMAINS:
        never(domain, None, "tcp_socket", "name_connect")
        for tclass in ["capability", "capability2", "cap_userns", "cap2_userns"]:
            never(domain, None, tclass)
        for tclass in ["udp_socket", "rawip_socket", "packet_socket", "netlink_route_socket", "bpf"]:
            never(domain, domain, tclass, "create prog_load")
        for secret in ["shadow_t", "user_home_t", "gpg_secret_t", "ssh_home_t", "fixed_disk_device_t"]:
            never(domain, secret, "file", "read open")
            never(domain, secret, "blk_file", "read open")
        for place in ["etc_t", "usr_t", "bin_t", "var_log_t", "tmp_t", "var_lib_t", "copr_keygen_conf_t"]:
            never(domain, place, "file", WRITING)
            never(domain, place, "dir", WRITING)
        for written in STATE_TYPES + ["copr_keygen_conf_t", "copr_keygen_sign_var_run_t"]:
            never(domain, written, "file", "execute execute_no_trans entrypoint")
        never(domain, domain, "process", "execmem execstack setexec setcurrent ptrace")
        others = [t for t in rules(domain, None, "process", "transition dyntransition")]
        verdict(f"{domain} must not become another domain", [], others)
        permissive = domain in {str(one) for one in policy.types() if one.ispermissive}
        verdict(f"{domain} is permissive", False, permissive)
    # systemd makes and binds the sockets of the service.
    never("copr_keygen_t", "copr_keygen_t", "tcp_socket", "create bind connect")
    verdict("ports of copr_keygen_t", ["copr_keygen_port_t", "copr_keygen_sign_port_t"], bound("copr_keygen_t"))
    verdict("ports of copr_keygen_sign_t", ["copr_keygen_sign_port_t"], bound("copr_keygen_sign_t"))
    for tclass in ["file", "dir", "lnk_file", "sock_file"]:
        for target in ["copr_keygen_var_lib_t", "copr_keygen_work_t"]:
            never("copr_keygen_sign_t", target, tclass, WRITING)
    never("copr_keygen_sign_t", "copr_keygen_var_run_t", "dir", WRITING)
    never("copr_keygen_sign_t", "copr_keygen_work_t", "dir", "read search open")
    for credentials in ["ramfs_t", "tmpfs_t", "init_tmpfs_t"]:
        never("copr_keygen_sign_t", credentials, "file", "open")
        never("copr_keygen_t", credentials, "file", "create unlink rename setattr")
    for source, tclass, permission in [
        ("copr_keygen_sign_t", "file", "read"),
        ("copr_keygen_t", "dir", "rename"),
        ("init_t", "dir", "watch"),
    ]:
        got = bool(rules(source, "copr_keygen_var_lib_t", tclass, permission))
        verdict(f"{source} must have {permission} of {tclass}", True, got)


def check_cluster():
    """What the boolean allows, and that it is off."""
    boolean = policy.lookup_boolean("copr_keygen_cluster")
    verdict("copr_keygen_cluster is on", False, bool(boolean.state))
    asks = "copr_keygen_t copr_keygen_etcd_port_t tcp_socket: name_connect"
    has_sockets = "copr_keygen_t copr_keygen_t tcp_socket: connect create"
    verdict("rules of copr_keygen_cluster", [asks, has_sockets], sorted(of_cluster))


def check_others():
    """Secret keys and passphrases are for nobody but the domains README.md names."""
    unconfined = types(policy.lookup_typeattr("files_unconfined_type"))
    got = set()
    for sources, targets, tclass, perms, _ in RULES:
        if "copr_keygen_var_lib_t" in targets and tclass == "file" and {"read", "write"} & perms:
            got |= sources
    with open(README, encoding="utf-8") as readme:
        named = set(re.findall(r"\b[a-z_]+_t\b", readme.read().split("## Who else")[1].split("\n## ")[0]))
    verdict("domains that reach the state and are not in README.md", [], sorted(got - unconfined - set(DOMAINS) - named))


def label(kind, path):
    return subprocess.run(
        ["matchpathcon", "-n", "-m", kind, "-f", CONTEXTS, path], capture_output=True, text=True, check=True
    ).stdout.split(":")[2]


def check_context(kind, wanted, *paths):
    for path in paths:
        verdict(f"label of {path}", wanted, label(kind, path))


def check_installed():
    """Everything `make install` installs has our label, or the usual one of its place."""
    for directory, _, names in os.walk(STAGE):
        for name in names:
            whole = os.path.join(directory, name)
            path = whole[len(STAGE) :]
            kind = "lnk_file" if os.path.islink(whole) else "file"
            if path in ("/usr/bin/copr-keygen", "/usr/bin/copr-keygen-signd"):
                wanted = "copr_keygen_exec_t"
            elif path.startswith("/usr/bin/"):
                wanted = "bin_t"
            elif path.startswith("/usr/lib/systemd/system/copr-keygen"):
                wanted = "copr_keygen_unit_t"
            elif path.startswith("/usr/lib/systemd/system/"):
                wanted = "systemd_unit_t"
            elif path.startswith("/usr/share/man/"):
                wanted = "man_t"
            else:
                wanted = "usr_t" if path.startswith("/usr/share/") else "lib_t"
            check_context(kind, wanted, path)


def check_contexts():
    check_installed()
    key = "user#a@copr.example.org"
    check_context("file", "copr_keygen_sign_exec_t", "/usr/bin/signd", "/usr/sbin/signd")
    units = ["/etc/systemd/system/copr-keygen.socket.d", "/lib/systemd/system/copr-keygen.service.d"]
    check_context("dir", "copr_keygen_unit_t", *units)
    check_context("dir", "copr_keygen_conf_t", "/etc/copr-keygen")
    check_context("file", "copr_keygen_conf_t", "/etc/copr-keygen/config.toml")
    check_context("dir", "copr_keygen_var_run_t", "/run/copr-keygen")
    check_context("dir", "copr_keygen_var_lib_t", "/run/copr-keygen/phrases")
    check_context("file", "copr_keygen_var_lib_t", f"/run/copr-keygen/phrases/{key}")
    check_context("sock_file", "copr_keygen_var_run_t", "/run/copr-keygen.sock", "/run/copr-keygen-signd.sock", "/run/copr-keygen/s")
    check_context("file", "copr_keygen_sign_var_run_t", "/run/signd/signd.pid")
    homes = ["", "/keys", f"/keys/{key}", "/phrases", "/pool/rsa2048", "/staging/a-1", f"/trash/{key}"]
    homes.append("/gnupg/private-keys-v1.d")
    check_context("dir", "copr_keygen_var_lib_t", *[STATE + path for path in homes])
    check_context("dir", "copr_keygen_work_t", *[f"{STATE}/{name}" for name in ["pool", "staging", "trash"]])
    check_context("file", "copr_keygen_var_lib_t", f"{STATE}/keys/{key}/passphrase")
    links = [f"{STATE}/phrases/{key}", f"{STATE}/gnupg/private-keys-v1.d/0A.key"]
    check_context("lnk_file", "copr_keygen_var_lib_t", *links)
    check_context("dir", "copr_keygen_gnupg_t", f"{STATE}/gnupg")
    renamed = [f"{STATE}/gnupg/gpg-agent.conf", f"{STATE}/gnupg/pubring.kbx"]
    check_context("file", "copr_keygen_var_lib_t", *renamed)
    check_context("sock_file", "copr_keygen_gnupg_t", f"{STATE}/gnupg/S.gpg-agent")
    check_context("file", "copr_keygen_gnupg_t", f"{STATE}/gnupg/keycache/{key}")


def check_ports():
    for number, wanted in [(5003, "copr_keygen_port_t"), (5167, "copr_keygen_sign_port_t")]:
        got = [
            str(port.context.type_)
            for port in policy.portcons()
            if port.ports.low == port.ports.high == number and str(port.protocol) == "tcp"
        ]
        verdict(f"label of port {number}", [wanted], got)


check_domains()
check_cluster()
check_others()
check_contexts()
check_ports()
print(f"{SUITE}: {checked} checks of the linked policy, {failed} failed")
sys.exit(bool(failed))
