//! Has gpg check an identity that gpg did not make. The certificate must agree with `key.json` and have a
//! good self-signature. The secret key must sign with the passphrase, and the revocation must revoke the key.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::bare::{self, Agent, Scratch};
use crate::identities::user_id;
use crate::state::{State, private_directory};

/// Checks a copy of the home, as gpg leaves files in a home that it uses.
pub fn prove(state: &State, name_email: &str, scratch: &Path) -> Result<()> {
    let original = state.home(name_email);
    let record: Value = serde_json::from_slice(&fs::read(original.join("key.json"))?)?;
    let field = |name: &str| record[name].as_str().ok_or(format!("key.json has no {name}"));
    let (fingerprint, keygrip) = (field("fingerprint")?, field("keygrip")?);
    let created = record["created"].to_string();
    let key = format!("private-keys-v1.d/{keygrip}.key");

    let copy = Scratch::new(scratch)?;
    private_directory(&copy.path().join("private-keys-v1.d"))?;
    for file in ["pubring.kbx", "passphrase", &key] {
        fs::copy(original.join(file), copy.path().join(file))?;
    }
    let copy = copy.path();
    let user_id = user_id(name_email);
    list(copy, &[("fpr", 9, fingerprint), ("grp", 9, keygrip), ("uid", 9, &user_id)])?;
    list(copy, &[("pub", 3, "22"), ("pub", 5, &created), ("pub", 6, ""), ("pub", 11, "scSC")])?;
    list(copy, &[("sig", 1, "!"), ("sig", 10, "13x"), ("sig", 12, fingerprint)])?;
    sign(copy, fingerprint)?;
    let revocation = original.join("openpgp-revocs.d").join(format!("{fingerprint}.rev"));
    let revocation = fs::read_to_string(revocation)?.replace(":-----BEGIN", "-----BEGIN");
    // With the trust model of the other calls, gpg would miss a trust database.
    let mut import = bare::gpg(copy);
    bare::quiet(import.args(["--trust-model=pgp", "--import"]), revocation.as_bytes())?;
    list(copy, &[("pub", 1, "r"), ("rev", 1, "!")])
}

/// Checks fields of a listing with colons. Each entry of `expected` is a record type, the index of a field,
/// and its value; there must be exactly one record of that type.
fn list(home: &Path, expected: &[(&str, usize, &str)]) -> Result<()> {
    let mut gpg = bare::gpg(home);
    gpg.args(["--no-autostart", "--with-colons", "--with-keygrip", "--check-sigs"]);
    let (listing, complaints) = bare::run_loudly(&mut gpg, b"")?;
    let listing = String::from_utf8(listing)?;
    let lines: Vec<Vec<_>> = listing.lines().map(|line| line.split(':').collect()).collect();
    for (kind, field, value) in expected {
        let found: Vec<_> = lines.iter().filter(|line| line[0] == *kind).collect();
        if found.len() != 1 || found[0].get(*field) != Some(value) {
            let place = format!("field {} of {kind} should be {value:?}", field + 1);
            return Err(format!("gpg lists another key than was made; {place}:\n{listing}").into());
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(format!("gpg complains: {complaints}").into()) }
}

/// Signs with the secret key and verifies the signature.
fn sign(home: &Path, fingerprint: &str) -> Result<()> {
    let mut gpg = Agent::Daemon.gpg(home, bare::S2K);
    gpg.args(["--pinentry-mode=loopback", "--passphrase-file"]).arg(home.join("passphrase"));
    let message = bare::run(gpg.args(["--sign", "--local-user", fingerprint]), b"a package")?;
    let mut gpg = bare::gpg(home);
    gpg.args(["--no-autostart", "--status-fd=1", "--verify"]);
    let status = String::from_utf8(bare::run(&mut gpg, &message)?)?;
    if status.contains(&format!("[GNUPG:] VALIDSIG {fingerprint} ")) {
        return Ok(());
    }
    Err(format!("the signature is not valid: {status}").into())
}
