//! Imitates obs-signd in agent mode, call for call and argument for argument: `signd-client pubkey USER` and
//! `signd-client sign USER FILE` (a detached signature, to stdout).
//! `signd-client sign-at-once USER FILE COUNT` opens COUNT connections to one agent. The agent has read the
//! key for each of them before it signs for any; all signatures go to stdout.
//!
//! Environment variables replace sign.conf: GNUPGHOME, SIGND_PHRASES (`phrases:`), SIGND_GPG (`gpg:`).

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The algorithm numbers of SHA-256 and RSA in OpenPGP and gpg-agent.
const SHA256: u8 = 8;
const RSA: u8 = 1;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let usage = "usage: signd-client pubkey USER | sign USER FILE | sign-at-once USER FILE COUNT";
    let user = *words.get(1).ok_or(usage)?;
    let phrase = PathBuf::from(std::env::var("SIGND_PHRASES")?).join(user);
    if !phrase.exists() {
        return Err(format!("unknown key: {user}").into());
    }
    // signd calls this when it starts.
    gpg(&["--pinentry-mode=loopback", "--version"])?;
    let output = match words[..] {
        ["pubkey", user] => gpg(&["--export", "-a", user])?,
        ["sign", user, file] => sign(user, &phrase, Path::new(file), 1)?,
        ["sign-at-once", user, file, count] => {
            sign(user, &phrase, Path::new(file), count.parse()?)?
        }
        _ => return Err(usage.into()),
    };
    std::io::stdout().write_all(&output)?;
    Ok(())
}

fn gpg(arguments: &[&str]) -> Result<Vec<u8>> {
    let output =
        Command::new(std::env::var("SIGND_GPG")?).args(arguments).stdin(Stdio::null()).output()?;
    stdout_of(output)
}

fn stdout_of(output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// Returns the fingerprint and the keygrip of the first key of `user` that can sign.
fn find_key(user: &str) -> Result<(String, String)> {
    let listing = gpg(&[
        "--locate-key",
        "--with-fingerprint",
        "--with-keygrip",
        "--with-colons",
        "--",
        user,
    ])?;
    let (mut signs, mut fingerprint) = (false, None);
    for line in String::from_utf8(listing)?.lines() {
        let fields: Vec<_> = line.split(':').collect();
        match fields[0] {
            "pub" | "sub" => signs = fields[11].contains('s'),
            "fpr" if signs => fingerprint = Some(fields[9].to_owned()),
            "grp" if signs => {
                let fingerprint = fingerprint.ok_or("grp before fpr")?;
                return Ok((fingerprint, fields[9].to_owned()));
            }
            _ => {}
        }
    }
    Err(format!("no key for {user}").into())
}

/// Makes detached version 4 OpenPGP signatures over the bytes of `file` (RFC 9580, 5.2.3 and 5.2.4), over
/// `count` connections at once.
fn sign(user: &str, phrase: &Path, file: &Path, count: usize) -> Result<Vec<u8>> {
    let (fingerprint, keygrip) = find_key(user)?;
    let fingerprint = from_hex(&fingerprint)?;
    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;

    let mut hashed = subpacket(2, &now.to_be_bytes());
    hashed.extend(subpacket(33, &[&[4], &fingerprint[..]].concat()));
    let mut packet = vec![4, 0x00, RSA, SHA256];
    packet.extend(u16::try_from(hashed.len())?.to_be_bytes());
    packet.extend(hashed);

    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hash)?;
    hash.update(&packet);
    hash.update([4, 0xff]);
    hash.update(u32::try_from(packet.len())?.to_be_bytes());
    let digest = hash.finalize();

    let mut signatures = Vec::new();
    for value in sign_with_agent(&keygrip, &digest, phrase, count)? {
        signatures.extend(signature(&packet, &fingerprint, &digest, &value)?);
    }
    Ok(signatures)
}

/// Assembles the signature packet from the hashed fields and the signature value.
fn signature(hashed: &[u8], fingerprint: &[u8], digest: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let mut packet = hashed.to_vec();
    let unhashed = subpacket(16, &fingerprint[12..]);
    packet.extend(u16::try_from(unhashed.len())?.to_be_bytes());
    packet.extend(unhashed);
    packet.extend(&digest[..2]);
    let bits = u16::try_from(value.len() * 8)? - u16::try_from(value[0].leading_zeros())?;
    packet.extend(bits.to_be_bytes());
    packet.extend(value);
    // Packet type 2 in the old format, with a length of two octets.
    let mut signature = vec![0x89];
    signature.extend(u16::try_from(packet.len())?.to_be_bytes());
    signature.extend(packet);
    Ok(signature)
}

fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(body.len() + 1).unwrap_or(u8::MAX), kind];
    bytes.extend(body);
    bytes
}

/// Gets RSA signatures of a SHA-256 digest from the agent, as signd does, over `count` connections. Sends the
/// first passphrase only after the agent has asked for it on every connection.
fn sign_with_agent(
    keygrip: &str,
    digest: &[u8],
    phrase: &Path,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut agents = Vec::new();
    for _ in 0..count {
        let mut agent = Agent::connect()?;
        agent.ask(&format!("SIGKEY {keygrip}"))?;
        agent.ask(&format!("SETHASH {SHA256} {}", to_hex(digest)))?;
        agent.ask("OPTION pinentry-mode=loopback")?;
        agent.send("PKSIGN")?;
        agents.push(agent);
    }
    let mut text = String::new();
    File::open(phrase)?.read_to_string(&mut text)?;
    let first = text.lines().next().unwrap_or_default();
    if let [agent] = &mut agents[..] {
        // A key of the old service is not protected, so the agent does not ask for a passphrase.
        return Ok(vec![rsa_value(&agent.answer(Some(first))?)?]);
    }
    let mut errors = Vec::new();
    agents.retain_mut(|agent| {
        let failed = agent.await_inquiry().err();
        let waits = failed.is_none();
        errors.extend(failed);
        waits
    });
    for agent in &mut agents {
        agent.send(&format!("D {first}\nEND"))?;
    }
    let mut values = Vec::new();
    for agent in &mut agents {
        match agent.answer(None).and_then(|answer| rsa_value(&answer)) {
            Ok(value) => values.push(value),
            Err(e) => errors.push(e),
        }
    }
    match errors.first() {
        None => Ok(values),
        Some(e) => Err(format!("{} of {count} signatures failed: {e}", errors.len()).into()),
    }
}

/// Returns the RSA signature value in the agent's answer to PKSIGN, without leading zeros.
fn rsa_value(answer: &[u8]) -> Result<Vec<u8>> {
    // (7:sig-val(3:rsa(1:s256:...)))
    let marker = b"(1:s";
    let at = answer.windows(4).position(|bytes| bytes == marker).ok_or("no signature")? + 4;
    let colon = at + answer[at..].iter().position(|b| *b == b':').ok_or("no length")?;
    let length: usize = std::str::from_utf8(&answer[at..colon])?.parse()?;
    let value = answer.get(colon + 1..colon + 1 + length).ok_or("short signature")?;
    Ok(value.iter().copied().skip_while(|b| *b == 0).collect())
}

/// A connection to gpg-agent that speaks the Assuan protocol.
struct Agent(BufReader<UnixStream>);

impl Agent {
    /// Connects to the agent of GNUPGHOME; starts one if none answers.
    fn connect() -> Result<Self> {
        let socket = agent_socket()?;
        let stream = match UnixStream::connect(&socket) {
            Ok(stream) => stream,
            Err(_) => {
                let started = Command::new("gpg-connect-agent").arg("/bye").output()?;
                stdout_of(started)?;
                UnixStream::connect(&socket)?
            }
        };
        let mut agent = Self(BufReader::new(stream));
        agent.answer(None)?;
        Ok(agent)
    }

    fn send(&mut self, command: &str) -> Result<()> {
        // Write in one piece: between two writes the agent may answer or hang up.
        Ok(self.0.get_mut().write_all(format!("{command}\n").as_bytes())?)
    }

    fn ask(&mut self, command: &str) -> Result<Vec<u8>> {
        self.send(command)?;
        self.answer(None)
    }

    /// Waits until the agent asks for the passphrase.
    fn await_inquiry(&mut self) -> Result<()> {
        loop {
            let line = self.line()?;
            if line.starts_with(b"INQUIRE PASSPHRASE") {
                return Ok(());
            } else if line.starts_with(b"INQUIRE ") {
                self.send("END")?;
            } else if line.starts_with(b"ERR ") || line.starts_with(b"OK") {
                return Err(String::from_utf8_lossy(&line).into());
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Err("the agent hung up".into());
        }
        line.pop();
        Ok(line)
    }

    /// Reads the data lines up to `OK`. Answers an inquiry for the passphrase with `phrase`.
    fn answer(&mut self, phrase: Option<&str>) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let line = self.line()?;
            if line == b"OK" || line.starts_with(b"OK ") {
                return Ok(data);
            } else if let Some(escaped) = line.strip_prefix(b"D ") {
                data.extend(unescape(escaped)?);
            } else if line.starts_with(b"INQUIRE PASSPHRASE") {
                self.send(&format!("D {}\nEND", phrase.unwrap_or_default()))?;
            } else if line.starts_with(b"INQUIRE ") {
                self.send("END")?;
            } else if line.starts_with(b"ERR ") {
                return Err(String::from_utf8_lossy(&line).into());
            }
        }
    }
}

fn agent_socket() -> Result<PathBuf> {
    let listing = stdout_of(Command::new("gpgconf").arg("--list-dirs").output()?)?;
    let listing = String::from_utf8(listing)?;
    let line = listing.lines().find_map(|line| line.strip_prefix("agent-socket:"));
    Ok(line.ok_or("gpgconf names no agent socket")?.into())
}

/// Decodes the percent escapes of an Assuan data line.
fn unescape(text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2).ok_or("a cut escape")?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Ok(bytes)
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    Ok(pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16))
        .collect::<std::result::Result<_, _>>()?)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
