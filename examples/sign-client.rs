//! A client for the tests that speaks the protocol of obs-signd, as its client `sign` does:
//!
//!     sign-client ADDRESS ping
//!     sign-client ADDRESS pubkey USER             the certificate, to stdout
//!     sign-client ADDRESS sign USER FILE          a detached signature of version 4, to stdout
//!     sign-client ADDRESS load USER SECONDS       signs repeatedly, over a new connection each time
//!
//! ADDRESS is HOST:PORT or unix:PATH. The server's message for a refusal goes to stderr, and the exit status
//! is 1. `load` goes on after failures, and prints how many signatures it got and how many failed.
//!
//! The server signs digests and answers with version 3 signature packets. For a version 4 signature, the
//! client first asks for a signature of the digest 0404...; the answer reveals the algorithm and the
//! fingerprint. With these it can hash the fields that end the digest of a version 4 signature. It then
//! copies the MPIs of the second answer into a version 4 packet of its own.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io, thread};

use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SHA256: u8 = 8;
/// The signature subpacket types.
const CREATED: u8 = 2;
const ISSUER: u8 = 16;
const ISSUER_FINGERPRINT: u8 = 33;

const USAGE: &str =
    "usage: sign-client ADDRESS ping | pubkey USER | sign USER FILE | load USER SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match run(&arguments).and_then(|output| Ok(io::stdout().write_all(&output)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Vec<u8>> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [address, "ping"] => Ok(ask(address, &["ping"])?.concat()),
        [address, "pubkey", user] => one(ask(address, &["pubkey", user])?),
        [address, "sign", user, file] => sign(address, user, &fs::read(file)?),
        [address, "load", user, seconds] => Ok(load(address, user, seconds.parse()?)),
        _ => Err(USAGE.into()),
    }
}

/// Sends one request and returns the strings of its answer.
fn ask(address: &str, words: &[&str]) -> Result<Vec<Vec<u8>>> {
    let mut content = u16::try_from(words.len())?.to_be_bytes().to_vec();
    for word in words {
        content.extend(u16::try_from(word.len())?.to_be_bytes());
    }
    words.iter().for_each(|word| content.extend(word.as_bytes()));
    let request = [&u16::try_from(content.len())?.to_be_bytes()[..], &[0, 0], &content].concat();
    let answer = match address.strip_prefix("unix:") {
        Some(path) => exchange(UnixStream::connect(path)?, &request)?,
        None => exchange(TcpStream::connect(address)?, &request)?,
    };
    let mut answer = Reader(&answer);
    let [status, output, error] = [answer.number()?, answer.number()?, answer.number()?];
    let (output, error) = (answer.take(output)?, answer.take(error)?);
    if status != 0 {
        return Err(String::from_utf8_lossy(error).trim_end().into());
    }
    let mut output = Reader(output);
    if output.0.is_empty() {
        return Ok(Vec::new());
    }
    let count = output.number()?;
    let lengths: Result<Vec<_>> = (0..count).map(|_| output.number()).collect();
    lengths?.into_iter().map(|length| Ok(output.take(length)?.to_vec())).collect()
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn one(mut strings: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    match (strings.pop(), strings.is_empty()) {
        (Some(string), true) => Ok(string),
        _ => Err("the answer is not one string".into()),
    }
}

/// Makes a detached version 4 signature of `data`.
fn sign(address: &str, user: &str, data: &[u8]) -> Result<Vec<u8>> {
    let user = format!("SHA256:{user}");
    let probe = format!("{}@0000000000", "04".repeat(32));
    let (algorithm, fingerprint) = issuer(&one(ask(address, &["sign", &user, &probe])?)?)?;

    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let hashed = [
        subpacket(ISSUER_FINGERPRINT, &[&[4], &fingerprint[..]].concat())?,
        subpacket(CREATED, &now.to_be_bytes())?,
    ];
    let mut body = vec![4, 0, algorithm, SHA256];
    body.extend(area(&hashed.concat())?);
    let end = [&[4, 0xff][..], &u32::try_from(body.len())?.to_be_bytes()].concat();
    let digest = Sha256::new().chain_update(data).chain_update(&body).chain_update(end).finalize();
    let asked = format!("{digest:x}@00{now:08x}");
    let packet = one(ask(address, &["sign", &user, &asked])?)?;

    // A version 3 packet: version, length of the hashed part, class, time, key ID, public key algorithm, hash
    // algorithm, the first two bytes of the digest, MPIs.
    let mut answer = Reader(contents(&packet)?);
    let head = answer.take(19)?;
    if head[..3] != [3, 5, 0] || head[15..17] != [algorithm, SHA256] || head[17..] != digest[..2] {
        return Err("the answer is not a signature of what was asked".into());
    }
    body.extend(area(&subpacket(ISSUER, &fingerprint[12..])?)?);
    body.extend(&digest[..2]);
    body.extend(answer.0);
    Ok([&[0x89][..], &u16::try_from(body.len())?.to_be_bytes(), &body].concat())
}

/// Signs for `seconds`, going on after failures. Returns a line with the numbers of successes and failures.
fn load(address: &str, user: &str, seconds: u64) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut made, mut missed) = (0, 0);
    while Instant::now() < end {
        match sign(address, user, b"load") {
            Ok(_) => made += 1,
            Err(_) => {
                missed += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    format!("{made} {missed}\n").into_bytes()
}

/// Returns the public key algorithm and the issuer fingerprint in a version 4 signature packet.
fn issuer(packet: &[u8]) -> Result<(u8, Vec<u8>)> {
    let mut body = Reader(contents(packet)?);
    let &[4, _, algorithm, _] = body.take(4)? else { return Err("not of version 4".into()) };
    let length = body.number()?;
    let mut hashed = Reader(body.take(length)?);
    while let Some(length) = hashed.0.first() {
        let subpacket = &hashed.take(1 + usize::from(*length))?[1..];
        if let [ISSUER_FINGERPRINT, 4, fingerprint @ ..] = subpacket {
            return Ok((algorithm, fingerprint.to_vec()));
        }
    }
    Err("the answer has no fingerprint".into())
}

/// Returns the body of a signature packet with an old format header.
fn contents(packet: &[u8]) -> Result<&[u8]> {
    let (length, body) = match packet {
        [0x88, length, body @ ..] => (usize::from(*length), body),
        [0x89, high, low, body @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), body),
        _ => return Err("the answer is not a signature packet".into()),
    };
    if body.len() != length {
        return Err("the answer is not as long as it says".into());
    }
    Ok(body)
}

fn subpacket(kind: u8, body: &[u8]) -> Result<Vec<u8>> {
    Ok([&[u8::try_from(body.len() + 1)?, kind], body].concat())
}

/// Prefixes subpackets with their total length in two octets.
fn area(subpackets: &[u8]) -> Result<Vec<u8>> {
    Ok([&u16::try_from(subpackets.len())?.to_be_bytes(), subpackets].concat())
}

/// A cursor over bytes that takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("the answer is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }
}
