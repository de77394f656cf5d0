//! Makes the identities of a state, each with an Ed25519 key and a passphrase of its own.
//! gpg makes only 115 per second on two cores, so they are made here, byte for byte as
//! gpg would make them. gpg checks some of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use serde_json::json;

use crate::bare::Scratch;
use crate::openpgp::{self, Certificate, hex};
use crate::state::{State, private_directory};
use crate::{Result, bare, keybox, proof, secret_key, service};

/// The number of new identities that gpg checks.
const PROVED: usize = 5;
/// The number of identities after which a line of progress is printed.
const PROGRESS: usize = 50_000;

/// Returns the name of identity `number` of a state.
pub fn name_email(number: usize) -> String {
    format!("user{number}#project@copr.example.org")
}

/// Returns the user ID of the key of an identity.
pub fn user_id(name_email: &str) -> String {
    format!("user <{name_email}>")
}

/// Makes the identities that `state` lacks to hold `size`, on `cores` threads.
pub fn grow(state: &State, size: usize, scratch: &Path, cores: usize) -> Result<()> {
    let missing: Vec<usize> =
        (0..size).filter(|number| !state.home(&name_email(*number)).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("making {} identities for a state of {size}", missing.len());
    let (next, started, now) = (AtomicUsize::new(0), Instant::now(), Now::read()?);
    let failure = Mutex::new(None);
    let work = || {
        let made = make_all(state, &missing, &next, scratch, &now);
        if let Err(e) = made {
            next.store(missing.len(), Ordering::Relaxed);
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    match failure.into_inner() {
        Ok(None) => {}
        Ok(Some(e)) => return Err(e),
        Err(_) => return Err("a thread panicked".into()),
    }
    let took = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = missing.len() as f64 / took;
    eprintln!("  {took:.1} s, {rate:.0} a second; gpg proves some of them");
    for _ in 0..PROVED {
        let name = name_email(missing[rand::random_range(0..missing.len())]);
        proof::prove(state, &name, scratch).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

/// Makes missing identities until none is left. Every thread runs this.
fn make_all(
    state: &State,
    missing: &[usize],
    next: &AtomicUsize,
    scratch: &Path,
    now: &Now,
) -> Result<()> {
    let scratch = Scratch::new(scratch)?;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(number) = missing.get(index) else { return Ok(()) };
        make(state, &name_email(*number), scratch.path(), now)?;
        if (index + 1) % PROGRESS == 0 {
            eprintln!("  {} of {}", index + 1, missing.len());
        }
    }
}

/// The creation time of all keys of a batch.
struct Now {
    unix: u32,
    /// The time as gpg-agent writes it, like `20261123T011033`.
    iso: String,
}

impl Now {
    fn read() -> Result<Self> {
        let unix = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let mut date = Command::new("date");
        let iso =
            service::stdout_of(date.args(["-u", "+%Y%m%dT%H%M%S", "-d", &format!("@{unix}")]))?;
        Ok(Self { unix, iso: String::from_utf8(iso)?.trim().into() })
    }
}

/// Makes an identity: its home as the service lays it out, and the links to it.
fn make(state: &State, name: &str, scratch: &Path, now: &Now) -> Result<()> {
    let key = SigningKey::from_bytes(&rand::random());
    let certificate = Certificate::new(&key, &user_id(name), now.unix);
    let (fingerprint, keygrip) = (hex(&certificate.fingerprint), hex(&openpgp::keygrip(&key)));
    let phrase = bare::passphrase();
    let secret = secret_key::file(&key, &phrase, &now.iso)?;
    let record = json!({
        "fingerprint": fingerprint, "keygrip": keygrip, "algorithm": "ed25519",
        "created": now.unix, "expires": null, "changed": now.unix,
    });

    let staged = scratch.join("staged");
    let (secrets, revocations) =
        (staged.join("private-keys-v1.d"), staged.join("openpgp-revocs.d"));
    let key_file = format!("{keygrip}.key");
    private_directory(&secrets)?;
    private_directory(&revocations)?;
    write(&staged.join("pubring.kbx"), &keybox::file(&certificate))?;
    write(&secrets.join(&key_file), secret.as_bytes())?;
    write(&revocations.join(format!("{fingerprint}.rev")), certificate.revocation.as_bytes())?;
    write(&staged.join("passphrase"), format!("{phrase}\n").as_bytes())?;
    write(&staged.join("key.json"), format!("{record}\n").as_bytes())?;

    let link = state.path().join("gnupg/private-keys-v1.d").join(&key_file);
    symlink(format!("../../keys/{name}/private-keys-v1.d/{key_file}"), link)?;
    fs::rename(&staged, state.home(name))?;
    symlink(format!("../keys/{name}/passphrase"), state.path().join("phrases").join(name))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}
