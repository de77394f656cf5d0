"""The hosts of the test bed: each has a network namespace, and in it a member of etcd, serve, follow and signd; HAProxy stands
in front of them. All of it is in namespaces of this process and ends with it.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from glob import glob
from pathlib import Path

RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target")) / "release"
PROGRAM, SIGN_CLIENT = str(RELEASE / "copr-keygen"), str(RELEASE / "examples/sign-client")
OUTSIDE, BALANCER = "10.77.0.254", "10.77.0.254:5003"
FAKETIME = (glob("/usr/lib*/faketime/libfaketime.so.1") + glob("/usr/lib/*/faketime/libfaketime.so.1") + [""])[0]
PATIENCE = 600  # with anything that ends by itself
NOBODY = "02:00:00:00:00:ff"  # an address of the link layer

# Only words that HAProxy 2.6 and 3.0 both have; tried with 2.6. HAProxy does not repeat a request that was
# answered: the client does that. When no host is ready, etcd has lost its majority, and every host still gives
# the keys that it has. While etcd elects a leader, /ready takes up to 3 s on healthy hosts. A check that waits
# for less time cuts off requests there. A dead host is detected by the timeout of the connection.
HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 40s
    timeout server 35s
    timeout check 4s
    retries 2
    option redispatch 1
frontend front
    bind {balancer}
    use_backend without_majority if {{ nbsrv(keygen) eq 0 }}
    default_backend keygen
backend keygen
    http-response set-header X-Served-By %s
    option httpchk GET /ready
    http-check expect status 200
    default-server check inter 1s fastinter 500ms fall 3 rise 1 on-marked-down shutdown-sessions
{servers}
backend without_majority
    http-response set-header X-Served-By %s
{servers}
"""


def run(*command, **options):
    """Runs what must succeed and returns what it prints."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, **options)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until(what, seconds, is_so):
    """Waits until is_so() and returns how long that took."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.05)
    return time.monotonic() - begun


class Host:
    """The host a, b, c or d, which is 10.77.0.1 to 4. The disk of b is small, the clock of c can be stepped."""

    def __init__(self, bed, number, services=("etcd", "serve", "follow", "signd")):
        self.bed, self.name, self.address, self.services = bed, "abcd"[number], f"10.77.0.{number + 1}", services
        self.home, self.memory = bed.work / self.name, Path("/dev/shm", self.name)
        self.state, self.clock = self.home / "state", self.home / "clock"
        self.lock, self.running = threading.RLock(), {}
        self.state.mkdir(0o700, parents=True)
        if self.name == "b":
            run("mount", "-t", "tmpfs", "-o", "size=128m,mode=0700", "bed", self.state)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"to-{self.name}", "master", "bridge", "up")
        for words in f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up":
            run("ip", "-n", self.name, *words.split())
        # The gateway of an etcd member is itself a client of that member, so the certificate needs clientAuth.
        bed.certify(self.name, "-CA", bed.work / "ca.pem", "-CAkey", bed.work / "ca.key", "-addext",
                    f"subjectAltName=IP:{self.address},IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
                    "-addext", "basicConstraints=critical,CA:FALSE")
        self.variables = self.environment()
        self.command("seal", is_alone=True)

    def environment(self):
        members = [f"https://10.77.0.{number}:2379" for number in (1, 2, 3)]
        members = ["http://127.0.0.1:2379" if self.address in url else url for url in members]
        settings = {
            "CONFIG": "/dev/null", "STATE_DIR": self.state, "POOL": "", "ALLOW_ANONYMOUS": "true",
            "LISTEN": f"{self.address}:5003", "SIGND_LISTEN": f"{self.address}:5167", "SIGND_ALLOW": f"{OUTSIDE} *",
            "PASSPHRASE_KEY_FILE": self.bed.work / "passphrase-key", "PHRASES_DIR": self.memory / "phrases",
            "CLUSTER_HOST": self.name, "CLUSTER_ENDPOINTS": " ".join(sorted(members)),
            "CLUSTER_CA_FILE": self.bed.work / "ca.pem", "CLUSTER_CERT_FILE": self.bed.work / f"{self.name}.pem",
            "CLUSTER_KEY_FILE": self.bed.work / f"{self.name}.key",
        }
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if self.name == "c":
            self.clock.write_text("+0\n")
            variables |= {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_NO_CACHE": "1",
                          "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            words = " ".join(f"{name}={text}" for name, text in variables.items())
            for setting, program in ("GPG", "gpg"), ("GPG_AGENT", "gpg-agent"):
                settings[setting] = self.home / program
                settings[setting].write_text(f'#!/bin/sh\n{words} exec /usr/bin/{program} "$@"\n')
                settings[setting].chmod(0o755)
        return variables | {f"COPR_KEYGEN_{name}": str(text) for name, text in settings.items()}

    def inside(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def log(self, name):
        return open(self.bed.logs / f"{self.name}-{name}.log", "a", encoding="utf-8")

    def command(self, *words, is_alone=False, may_fail=False):
        """Runs a mode of the program, as root of this host would."""
        self.memory.mkdir(exist_ok=True)
        variables = {name: text for name, text in self.variables.items() if not (is_alone and "CLUSTER" in name)}
        command = self.inside(PROGRAM, *words)
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE)
        with self.log("commands") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {words}: {done.returncode}\n{done.stderr}")
        if done.returncode and not may_fail:
            raise RuntimeError(f"{self.name}: {words}: {done.returncode}: {done.stderr}")
        return done

    def start(self, service):
        command = self.bed.member(self) if service == "etcd" else [PROGRAM, service]
        with self.lock, self.log(service) as log:
            self.running[service] = subprocess.Popen(
                self.inside(*command), env=None if service == "etcd" else self.variables, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)

    def kill(self, service):
        with self.lock:
            process = self.running.pop(service)
            process.kill()
            process.wait()

    def die(self):
        """The cable first, then all processes, gpg too; memory is lost."""
        self.plug(False)
        with self.lock:
            self.running.clear()
            for pid in run("ip", "netns", "pids", self.name).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        shutil.rmtree(self.memory, ignore_errors=True)

    def boot(self):
        self.plug(True)
        self.command("phrases")
        for service in self.services:
            self.start(service)

    def plug(self, is_in):
        run("ip", "link", "set", f"to-{self.name}", "up" if is_in else "down")

    def separate(self, others, words="replace {} lladdr {} nud permanent dev eth0"):
        """Cuts it off from other hosts, silently, and not from HAProxy."""
        for other in others:
            for one, peer in (self, other), (other, self):
                run("ip", "-n", one.name, "neigh", *words.format(peer.address, NOBODY).split())

    def rejoin(self, others):
        self.separate(others, "del {} dev eth0")

    def fill_disk(self):
        space = os.statvfs(self.state)
        with open(self.state / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, space.f_bavail * space.f_frsize - 100 * 1024))

    def followed(self):
        """The revision up to which it has followed, as it says itself."""
        try:
            return json.loads((self.state / "cluster.json").read_text())["revision"]
        except (OSError, ValueError):
            return -1

    def memory_of(self, service):
        """Resident and proportional KiB."""
        lines = [line.split() for file in ("status", "smaps_rollup")
                 for line in Path(f"/proc/{self.running[service].pid}/{file}").read_text().splitlines()]
        return [int(words[1]) for words in lines if words[0] in ("VmRSS:", "Pss:")]


class Bed:
    """All hosts, and what is made for all of them."""

    def __init__(self, work, logs):
        self.work, self.logs, self.hosts, self.is_up, self.unexpected = work, logs, [], True, []
        os.makedirs("/run/netns", exist_ok=True)
        for place in "/dev/shm", "/run/netns":
            run("mount", "-t", "tmpfs", "bed", place)
        for words in "link set lo up", "link add bridge type bridge", f"addr add {OUTSIDE}/24 dev bridge", "link set bridge up":
            run("ip", *words.split())
        (work / "passphrase-key").touch(0o600)
        (work / "passphrase-key").write_text(random.SystemRandom().randbytes(32).hex())
        self.certify("ca")
        self.hosts = [Host(self, number) for number in range(3)]
        for host in self.hosts:
            host.start("etcd")
        wait_until("etcd has a leader", 60, lambda: self.etcdctl("get", "x", may_fail=True) is not None)
        for host in self.hosts:
            for service in host.services[1:]:
                host.start(service)
        servers = "\n".join(f"    server {host.name} {host.address}:5003" for host in self.hosts)
        (work / "haproxy.cfg").write_text(HAPROXY.format(balancer=BALANCER, servers=servers))
        with open(logs / "haproxy.log", "w", encoding="utf-8") as log:
            subprocess.Popen(["haproxy", "-db", "-f", work / "haproxy.cfg"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        threading.Thread(target=self.supervise, daemon=True).start()

    def certify(self, name, *words):
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}", *words,
            "-keyout", self.work / f"{name}.key", "-out", self.work / f"{name}.pem")

    def member(self, host):
        """The command of a member of etcd. Peers speak in the clear, as the bed has no outside."""
        peer, clients = f"http://{host.address}:2380", f"https://{host.address}:2379"
        cluster = ",".join(f"{'abc'[number]}=http://10.77.0.{number + 1}:2380" for number in range(3))
        options = {
            "name": host.name, "data-dir": host.home / "etcd", "logger": "zap", "initial-cluster": cluster,
            "listen-client-urls": f"{clients},http://127.0.0.1:2379", "advertise-client-urls": clients,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "client-cert-auth": "true",
            "trusted-ca-file": self.work / "ca.pem", "cert-file": self.work / f"{host.name}.pem",
            "key-file": self.work / f"{host.name}.key",
        }
        return ["etcd", *(f"--{name}={text}" for name, text in options.items())]

    def etcdctl(self, *words, may_fail=False):
        try:
            return run(*self.hosts[0].inside("etcdctl", *words), env=os.environ | {"ETCDCTL_API": "3"})
        except RuntimeError:
            if may_fail:
                return None
            raise

    def revision(self):
        return json.loads(self.etcdctl("get", "x", "-w", "json"))["header"]["revision"]

    def supervise(self):
        """Starts again what has ended without being killed, as systemd does, and notes it."""
        while self.is_up:
            time.sleep(1)
            for host in self.hosts:
                with host.lock:
                    for service, process in list(host.running.items()):
                        if process.poll() is not None:
                            at = time.strftime("%H:%M:%S")
                            self.unexpected.append(f"{at} {service} of {host.name}: {process.returncode}")
                            host.start(service)
