"""What clients ask and are told, all of it written down; and whether it was right."""

import base64
import collections
import http.client
import json
import random
import subprocess
import threading
import time
import urllib.parse

from hosts import BALANCER, PATIENCE, SIGN_CLIENT

RETRIES, PAUSE = 5, 5  # of the backend, and the seconds between them
GOOD = (200, 201)


def identity(kind, number):
    return f"user#{kind}{number}@copr.example.org"


def ask(address, method, path, body=None, timeout=30):
    """Status, body and headers; status 0 when there is no answer."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, body=body and json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode(), {}
    finally:
        connection.close()


def get_key(address, name, part="", timeout=5):
    """Status and body."""
    return ask(address, "GET", f"/keys/{urllib.parse.quote(name)}{part}", timeout=timeout)[:2]


def dearmored(text):
    return base64.b64decode(text.decode().split("\n\n", 1)[1].split("\n=")[0])


def signatures(armored):
    """The signature packets of an armored certificate."""
    data, at, found = dearmored(armored), 0, set()
    while at < len(data):
        tag, first, at = data[at], data[at + 1], at + 1
        if not tag & 0x40:
            kind, size = tag >> 2 & 15, (1, 2, 4)[tag & 3]
            length = int.from_bytes(data[at : at + size], "big")
        else:
            kind, size = tag & 63, 1 if first < 192 else 2 if first < 224 else 5
            length = (first, (first - 192) * 256 + data[at + 1] + 192, int.from_bytes(data[at + 1 : at + 5], "big"))[size // 2]
        at += size + length
        if kind == 2:
            found.add(data[at - length : at])
    return found


class History:
    """Every answer, in memory and as JSON lines."""

    def __init__(self, hosts, logs):
        self.addresses, self.lock = {host.name: f"{host.address}:5003" for host in hosts}, threading.Lock()
        self.file = open(logs / "answers.jsonl", "w", encoding="utf-8")
        self.answers, self.failed, self.published = [], [], collections.defaultdict(set)

    def gen_key(self, name, host=None, retries=RETRIES, timeout=30, **fields):
        """Asks for a key, through HAProxy or one host. Returns the last status."""
        body = {"name_real": "bed", "name_email": name, **fields}
        for attempt in range(retries + 1):
            time.sleep(PAUSE if attempt else 0)
            answer = {"began": time.time(), "by": host or "haproxy", "name": name, "attempt": attempt}
            address = self.addresses[host] if host else BALANCER
            status, words, headers = ask(address, "POST", "/gen_key", body, timeout)
            answer |= {"ended": time.time(), "status": status, "host": host or headers.get("X-Served-By"), "fingerprint": None}
            if status not in GOOD:
                answer["words"] = words.decode(errors="replace")[:200]
            elif answer["host"]:
                found, key = get_key(self.addresses[answer["host"]], name)
                answer["fingerprint"] = json.loads(key)["fingerprint"] if found == 200 else None
            with self.lock:
                self.answers.append(answer)
                self.file.write(json.dumps(answer) + "\n")
                self.file.flush()
            if status in GOOD or 400 <= status < 500 and status != 408:
                break
        if status not in GOOD and retries and not host:
            self.failed.append(f"{name}: {status} after {attempt} retries through HAProxy")
        return status

    def arrival(self, name, made_on):
        """Seconds until a key that was just made is on every other host; None when that takes more than a minute."""
        begun, left = time.monotonic(), [address for host, address in self.addresses.items() if host != made_on]
        while left and time.monotonic() - begun < 60:
            left = [address for address in left if get_key(address, name)[0] != 200]
            time.sleep(0.01 if left else 0)
        return None if left else time.monotonic() - begun

    def sample(self, name, host):
        """Looks at what a host publishes now."""
        status, body = get_key(self.addresses[host], name, "/pubkey")
        if status == 200:
            with self.lock:
                self.published[name] |= signatures(body)

    def longest_silence(self, begin, end):
        """The longest time without a good answer through HAProxy that began between these times, in which clients ask."""
        good = sorted(answer["ended"] for answer in self.answers if answer["by"] == "haproxy" and answer["status"] in GOOD)
        gaps = [later - earlier for earlier, later in zip(good, good[1:]) if begin <= later and earlier <= end]
        return max(gaps, default=end - begin)


def judge(bed, history, apart):
    """Everything that must hold when all is healed. Returns what does not, and lines about what was seen."""
    problems, listed, told = list(history.failed), {}, collections.defaultdict(set)
    for host in bed.hosts:
        keys = json.loads(host.command("list", "--json").stdout)
        listed[host] = {key["name_email"]: key["fingerprint"] for key in keys}
    good = [answer for answer in history.answers if answer["status"] in GOOD]
    for answer in good:
        told[answer["name"]] |= {answer["fingerprint"]} - {None}
    for name, fingerprints in told.items():
        everywhere = {of.get(name) for of in listed.values()}
        if len(everywhere) > 1 or name not in apart and (None in everywhere or fingerprints - everywhere):
            problems.append(f"{name}: told {fingerprints}, the hosts have {everywhere}")
    made = collections.Counter(answer["name"] for answer in good if answer["status"] == 201 and answer["name"] not in apart)
    problems += [f"{name}: answered 201 {count} times" for name, count in made.items() if count > 1]
    names = sorted(set().union(*listed.values()))
    stored = bed.etcdctl("get", "/copr-keygen/keys/", "--prefix", "--keys-only").split()
    problems += [f"{name}: etcd does not have it" for name in names if f"/copr-keygen/keys/{name}" not in stored]

    text, files = bed.work / "text", [bed.work / "keys.pgp", bed.work / "signature"]
    text.write_text("to be signed\n")
    verified = random.Random(1).sample(names, min(20, len(names)))
    for host, keys in listed.items():
        if "deleted from etcd" in (bed.logs / f"{host.name}-follow.log").read_text():
            problems.append(f"{host.name}: a key was deleted from etcd")
        for name in keys:
            if not (host.state / "keys" / name / "passphrase").read_bytes().startswith(b"sealed:"):
                problems.append(f"{host.name}: {name}: its passphrase is not sealed")
            command = [SIGN_CLIENT, f"{host.address}:5167", "sign", name, text]
            signed = subprocess.run(command, capture_output=True, timeout=PATIENCE)
            if signed.returncode:
                problems.append(f"{host.name}: {name} does not sign: {signed.stderr.decode()}")
            elif name in verified:
                files[0].write_bytes(dearmored(get_key(history.addresses[host.name], name, "/pubkey")[1]))
                files[1].write_bytes(signed.stdout)
                if subprocess.run(["gpgv", "--keyring", *files, text], capture_output=True).returncode:
                    problems.append(f"{host.name}: {name}: gpgv refuses its signature")
        for name, published in history.published.items():
            status, body = get_key(history.addresses[host.name], name, "/pubkey")
            lost = published - (signatures(body) if status == 200 else set())
            if lost:
                problems.append(f"{host.name}: {name}: {len(lost)} of {len(published)} published signatures are lost")
    seen = sum(map(len, history.published.values()))
    return problems, [
        f"{len(told)} identities were asked for; {len(names)} keys on {len(bed.hosts)} hosts",
        f"{sum(map(len, listed.values()))} signatures made, {len(verified) * len(bed.hosts)} of them verified by gpgv",
        f"{seen} published signatures of {len(history.published)} keys seen, all are looked for",
    ]
