//! Makes many identities quickly and truly: real gpg makes a distinct Ed25519 key with a passphrase of
//! its own for each, a hundred in one run. The keybox of such a run is then split into keyrings of one
//! certificate, at the borders that the format has between them (kbx/keybox-blob.c of GnuPG).

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::Result;
use crate::bare::{self, Agent, Scratch};
use crate::state::{State, private_directory};

/// Keys in one run of gpg; more would make it copy a longer keyring for each.
const BATCH: usize = 100;

/// The header of a keybox file.
pub const HEADER: usize = 32;

/// The name of an identity of the store.
pub fn name_email(number: usize) -> String {
    format!("user{number}#project@copr.example.org")
}

/// Makes the identities that `state` lacks to hold `size`, on all cores.
pub fn grow(state: &State, size: usize, scratch: &Path, cores: usize) -> Result<()> {
    let missing: Vec<usize> =
        (0..size).filter(|number| !state.home(&name_email(*number)).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("making {} identities for a state of {size}", missing.len());
    let batches: Vec<_> = missing.chunks(BATCH).collect();
    let (next, made, started) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let failure = Mutex::new(None);
    let work = || {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = make(state, batch, scratch) {
                next.store(batches.len(), Ordering::Relaxed);
                *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
                return;
            }
            let done = made.fetch_add(batch.len(), Ordering::Relaxed) + batch.len();
            if done % 5000 < BATCH {
                #[allow(clippy::cast_precision_loss)]
                let rate = done as f64 / started.elapsed().as_secs_f64();
                eprintln!("  {done} of {}, {rate:.0} a second", missing.len());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    match failure.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(e)) => Err(e),
        Err(_) => Err("a thread panicked".into()),
    }
}

fn make(state: &State, numbers: &[usize], scratch: &Path) -> Result<()> {
    let home = Scratch::new(scratch)?;
    let phrases: Vec<_> = numbers.iter().map(|_| bare::passphrase()).collect();
    let blocks: Vec<_> =
        numbers.iter().zip(&phrases).map(|(number, phrase)| block(*number, phrase)).collect();
    let mut command = Agent::Daemon.gpg(home.path(), bare::S2K);
    command.args(["--pinentry-mode=loopback", "--gen-key"]);
    bare::run(&mut command, blocks.concat().as_bytes())?;

    let mut listing = bare::gpg(home.path());
    listing.args(["--no-autostart", "--with-colons", "--with-keygrip", "--list-keys"]);
    let listing = String::from_utf8(bare::run(&mut listing, b"")?)?;
    let certificates = certificates(&listing)?;
    let keybox = fs::read(home.path().join("pubring.kbx"))?;
    let (header, blobs) = split(&keybox)?;
    if blobs.len() != numbers.len() || certificates.len() != numbers.len() {
        return Err(format!("{} keys instead of {}", blobs.len(), numbers.len()).into());
    }
    for (index, number) in numbers.iter().enumerate() {
        let certificate = &certificates[index];
        let name = name_email(*number);
        let is_its = |text: &str| {
            let bytes = text.as_bytes();
            blobs[index].windows(bytes.len()).any(|window| window == bytes)
        };
        if !is_its(&format!("<{name}>")) || !certificate.user_id.contains(&name) {
            return Err(format!("{name}: keybox and listing are not in the same order").into());
        }
        let keyring = [header, blobs[index]].concat();
        publish(state, home.path(), &name, certificate, &keyring, &phrases[index])?;
    }
    Ok(())
}

fn block(number: usize, phrase: &str) -> String {
    format!(
        "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign\nExpire-Date: 0\nName-Real: user\n\
         Name-Email: {}\nPassphrase: {phrase}\n%commit\n",
        name_email(number)
    )
}

struct Certificate {
    fingerprint: String,
    keygrip: String,
    created: u64,
    user_id: String,
}

/// The certificates of a listing, in its order.
fn certificates(listing: &str) -> Result<Vec<Certificate>> {
    let mut found: Vec<Certificate> = Vec::new();
    for line in listing.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if fields[0] == "pub" {
            let created = fields.get(5).ok_or("a short line")?.parse()?;
            let nothing = String::new;
            found.push(Certificate {
                fingerprint: nothing(),
                keygrip: nothing(),
                created,
                user_id: nothing(),
            });
        }
        let (Some(last), Some(value)) = (found.last_mut(), fields.get(9)) else { continue };
        match fields[0] {
            "fpr" => last.fingerprint = (*value).into(),
            "grp" => last.keygrip = (*value).into(),
            "uid" => last.user_id = value.replace("\\x3a", ":"),
            _ => {}
        }
    }
    Ok(found)
}

/// The header of a keybox, and its certificates: each blob begins with its length in four bytes.
pub fn split(keybox: &[u8]) -> Result<(&[u8], Vec<&[u8]>)> {
    let (header, mut rest) = keybox.split_at_checked(HEADER).ok_or("a short keybox")?;
    if header.get(8..12) != Some(b"KBXf") {
        return Err("not a keybox".into());
    }
    let mut blobs = Vec::new();
    while let Some(length) = rest.first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (blob, tail) = rest.split_at_checked(length.max(5)).ok_or("a cut keybox")?;
        // Type 2 is a certificate, 0 is what is left of a deleted one.
        if blob[4] == 2 {
            blobs.push(blob);
        }
        rest = tail;
    }
    Ok((header, blobs))
}

/// Lays out a home as the service does, and the links to it.
fn publish(
    state: &State,
    from: &Path,
    name: &str,
    certificate: &Certificate,
    keyring: &[u8],
    phrase: &str,
) -> Result<()> {
    let staged = from.join("staged");
    let Certificate { fingerprint, keygrip, created, .. } = certificate;
    let (key, revocation) = (format!("{keygrip}.key"), format!("{fingerprint}.rev"));
    private_directory(&staged.join("private-keys-v1.d"))?;
    private_directory(&staged.join("openpgp-revocs.d"))?;
    let record = json!({
        "fingerprint": fingerprint, "keygrip": keygrip, "algorithm": "ed25519",
        "created": created, "expires": null, "changed": created,
    });
    write(&staged.join("pubring.kbx"), keyring)?;
    write(&staged.join("passphrase"), format!("{phrase}\n").as_bytes())?;
    write(&staged.join("key.json"), format!("{record}\n").as_bytes())?;
    for (directory, file) in [("private-keys-v1.d", &key), ("openpgp-revocs.d", &revocation)] {
        fs::rename(from.join(directory).join(file), staged.join(directory).join(file))?;
    }
    let link = state.path().join("gnupg/private-keys-v1.d").join(&key);
    symlink(format!("../../keys/{name}/private-keys-v1.d/{key}"), link)?;
    fs::rename(&staged, state.home(name))?;
    symlink(format!("../keys/{name}/passphrase"), state.path().join("phrases").join(name))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}
