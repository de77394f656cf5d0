//! What is left of a key in the memory of `signd`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use openssl::bn::{BigNum, BigNumContext};

use super::certificate::text;
use super::host::Transport;
use super::old_host::{OldHost, plain};
use super::signer_host::{SignerHost, host_with, sign};

/// Returns the secret numbers of an unprotected RSA key: d, p, q, u, and d modulo p - 1 and q - 1.
fn secret_numbers(old_host: &OldHost, id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let file = fs::read_to_string(old_host.secret(&old_host.keys_of(id)[0].1)).unwrap();
    let file: String = file.split_whitespace().collect();
    let number = |name| {
        let digits = file.split(&format!("({name}#")).nth(1).unwrap().split('#').next().unwrap();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect::<Vec<u8>>()
    };
    let mut numbers: Vec<_> = ["d", "p", "q", "u"].map(|name| (name, number(name))).into();
    for (name, prime) in [("d mod p-1", "p"), ("d mod q-1", "q")] {
        let [d, mut prime] = ["d", prime].map(|name| BigNum::from_slice(&number(name)).unwrap());
        prime.sub_word(1).unwrap();
        let mut reduced = BigNum::new().unwrap();
        reduced.nnmod(&d, &prime, &mut BigNumContext::new().unwrap()).unwrap();
        numbers.push((name, reduced.to_vec()));
    }
    numbers
}

/// Returns all memory of a process that is writable.
fn memory_of(pid: i32) -> Vec<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut part, from).is_ok() {
            found.push(part);
        }
    }
    found
}

fn holds(memory: &[Vec<u8>], bytes: &[u8]) -> bool {
    // libcrypto aligns numbers to its words of 8 bytes.
    memory.iter().any(|part| {
        part.chunks_exact(8)
            .enumerate()
            .any(|(word, first)| first == &bytes[..8] && part[word * 8..].starts_with(bytes))
    })
}

#[test]
fn no_number_of_a_key_is_left_when_nobody_asks_any_more() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can read the memory of a signer");
        return;
    }
    let ids = plain(2);
    let (old_host, keys) = (OldHost::new(&ids), host_with(&[]));
    let imported = old_host.import(&keys, &[]);
    assert!(imported.status.success(), "{}", text(&imported));
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    let ask = |client: usize, count: usize| {
        for round in 0..count {
            sign(&host.signd, &ids[(client + round) % ids.len()], b"data").unwrap();
        }
    };
    // What a signature leaves in memory depends on other allocations. So one client signs alone, and then
    // many at once.
    ask(0, 150);
    thread::scope(|scope| {
        for client in 0..16 {
            scope.spawn(move || ask(client, 50));
        }
    });
    let pid = host.signd.pid().as_raw();
    let numbers: Vec<_> = ids.iter().flat_map(|id| secret_numbers(&old_host, id)).collect();
    let left = || {
        let memory = memory_of(pid);
        assert!(memory.iter().map(Vec::len).sum::<usize>() > 1 << 20);
        let mut left = Vec::new();
        for (name, number) in &numbers {
            let backwards: Vec<_> = number.iter().rev().copied().collect();
            // Freeing memory overwrites its beginning, so the first 32 bytes do not count.
            let parts = [number, &backwards].map(|number| number.chunks_exact(32).skip(1));
            if parts.into_iter().flatten().any(|part| holds(&memory, part)) {
                left.push(*name);
            }
        }
        left
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !left().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(left(), [""; 0]);
}
