//! Generates keys. This is the one place that runs `gpg --gen-key`.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use crate::call::GpgCall;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, Keygrip};
use crate::key::KeyLength;
use crate::parameters::{self, KeyParameters};
use crate::process::Finished;
use crate::programs::Gpg;
use crate::secret::Protection;
use crate::status::Status;

/// A key that gpg has just made.
#[derive(Debug)]
pub struct Generated {
    /// The fingerprint of the primary key.
    pub fingerprint: Fingerprint,
    /// The keygrip of the primary key.
    pub keygrip: Keygrip,
}

impl Gpg {
    /// Generates the key that `request` describes in `home`. The home is empty, or holds the secret key of
    /// `keygrip`, which the new certificate then uses. `passphrase` protects the secret key; `created` (Unix
    /// time) is the time of creation. The run ends by `deadline`, and after `gpg_timeout` (a setting) at the
    /// latest.
    pub fn generate(
        &self,
        home: &Path,
        passphrase: &[u8],
        request: &KeyParameters,
        keygrip: Option<&Keygrip>,
        created: u64,
        deadline: Instant,
    ) -> Result<Generated> {
        let parameters = parameters::parameter_file(request, keygrip, created);
        let call = generating(self.call(home, deadline), passphrase, &parameters);
        let fingerprint = created_fingerprint(call.run_with_agent()?)?;
        let keygrip = only_secret_key(&home.join("private-keys-v1.d"))?;
        Ok(Generated { fingerprint, keygrip })
    }

    /// Generates a secret key in the empty `home`, at idle priority. gpg makes a certificate with it, which
    /// names no identity and is not kept. Returns `None` if `stop` became readable meanwhile.
    pub fn generate_secret(
        &self,
        home: &Path,
        passphrase: &[u8],
        length: KeyLength,
        deadline: Instant,
        stop: BorrowedFd,
    ) -> Result<Option<Keygrip>> {
        let parameters = parameters::secret_only(length);
        let call = generating(self.long_call(home, deadline), passphrase, &parameters);
        let finished = call.in_background_until(stop).run_with_agent()?;
        if finished.stopped {
            return Ok(None);
        }
        created_fingerprint(finished)?;
        only_secret_key(&home.join("private-keys-v1.d")).map(Some)
    }
}

fn generating<'a>(call: GpgCall<'a>, passphrase: &[u8], parameters: &str) -> GpgCall<'a> {
    call.passphrase(passphrase, parameters.as_bytes())
        .words(["--cert-digest-algo=SHA256", "--gen-key"])
}

fn created_fingerprint(finished: Finished) -> Result<Fingerprint> {
    let output = finished.succeeded("generating a key")?;
    match &Status::parse(&output.stdout).created[..] {
        [fingerprint] => Ok(fingerprint.clone()),
        _ => Err(Error::Failed {
            how: "it did not report one created key".into(),
            words: output.words,
        }),
    }
}

/// Returns the keygrip of the only file in `directory`. Fails unless that file is a protected secret key.
fn only_secret_key(directory: &Path) -> Result<Keygrip> {
    let broken = |how: &str| Error::Failed { how: how.into(), words: String::new() };
    let reading = || format!("reading {}", directory.display());
    let mut grips = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| Error::io(reading(), e))? {
        let name = entry.map_err(|e| Error::io(reading(), e))?.file_name();
        grips.push(Keygrip::from_file_name(&name).ok_or_else(|| broken("it made a strange file"))?);
    }
    let grip = match <[_; 1]>::try_from(grips) {
        Ok([grip]) => grip,
        Err(_) => return Err(broken("it did not make exactly one secret key")),
    };
    let key = fs::read(directory.join(grip.file_name())).map_err(|e| Error::io(reading(), e))?;
    match Protection::of(&key) {
        Some(Protection::Passphrase) => Ok(grip),
        _ => Err(broken("it left the secret key unprotected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::End;
    use std::time::Duration;

    fn finished(end: Option<End>, stdout: &str, stderr: &str) -> Finished {
        let took = Duration::from_secs(1);
        Finished { end, stopped: false, stdout: stdout.into(), stderr: stderr.into(), took }
    }

    #[test]
    fn believes_in_a_key_only_with_exit_zero_and_one_status_line() {
        let line = "[GNUPG:] KEY_CREATED P C736DB1B28C783E150C8F0BCF189EC9B614804D3\n";
        let read =
            |end, stdout: &str, stderr: &str| created_fingerprint(finished(end, stdout, stderr));
        assert!(read(Some(End::Exited(0)), line, "").is_ok());
        let twice = format!("{line}{line}");
        for (end, stdout) in [
            (Some(End::Exited(0)), ""),
            (Some(End::Exited(0)), &twice[..]),
            (Some(End::Exited(2)), line),
            (Some(End::Killed(nix::sys::signal::Signal::SIGKILL)), line),
        ] {
            assert!(matches!(read(end, stdout, ""), Err(Error::Failed { .. })));
        }
        assert!(matches!(read(None, line, ""), Err(Error::TimedOut { .. })));
        let full = "gpg: error writing keyblock: No space left on device";
        assert!(matches!(read(Some(End::Exited(2)), "", full), Err(Error::NoSpace { .. })));
    }
}
