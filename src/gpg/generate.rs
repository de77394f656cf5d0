//! Generates a key in a home: the one place that runs `gpg --gen-key`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process::{End, Finished, Job};
use super::status::Status;
use super::{Fingerprint, Gpg, Keygrip, parameters, process};
use crate::error::{Error, Result};
use crate::key_request::KeyRequest;

/// A key that gpg has just made.
#[derive(Debug)]
pub struct Generated {
    /// Fingerprint of the primary key.
    pub fingerprint: Fingerprint,
    /// Keygrip of its secret key.
    pub keygrip: Keygrip,
}

impl Gpg {
    /// Makes the key of `request` in the empty `home`, its secret part protected by the first line
    /// of `passphrase_file`, created at `created` (Unix time). Takes no longer than `deadline` and
    /// the setting `gpg_timeout` allow.
    ///
    /// gpg-agent makes its sockets, turns gpg into its own parent and watches it; both are in one
    /// process group. So the agent needs no polling to start and cannot outlive the group. Its
    /// passphrase is 256 random bits: stretching it (`--s2k-count`) would add time and nothing
    /// else.
    pub fn generate(
        &self,
        home: &Path,
        passphrase_file: &Path,
        request: &KeyRequest,
        created: u64,
        deadline: Instant,
    ) -> Result<Generated> {
        self.check_installed()?;
        let parameters = parameters::parameter_file(request, created);
        let mut arguments = vec!["--homedir".into(), home.into()];
        arguments.extend(
            ["--no-detach", "--quiet", "--s2k-count=65536", "--disable-scdaemon"].map(Into::into),
        );
        arguments.extend(["--extra-socket=none", "--browser-socket=none"].map(Into::into));
        arguments.extend(["--daemon", "--"].map(Into::into));
        arguments.extend([self.gpg.clone().into(), "--homedir".into(), home.into()]);
        arguments.extend(["--batch", "--no-tty", "--no-autostart"].map(Into::into));
        arguments.extend(["--no-auto-check-trustdb", "--trust-model=always"].map(Into::into));
        arguments.extend(["--pinentry-mode=loopback", "--passphrase-file"].map(Into::into));
        arguments.push(passphrase_file.into());
        arguments.extend(["--status-fd=1", "--cert-digest-algo=SHA256"].map(Into::into));
        arguments.push("--gen-key".into());

        let started = Instant::now();
        let finished = process::run(&Job {
            program: &self.agent,
            arguments,
            stdin: parameters.as_bytes(),
            deadline: deadline.min(started + self.timeout),
        })
        .map_err(|e| Error::io("running gpg-agent and gpg", e))?;
        self.remove_socket_directory(home);
        let fingerprint = created_fingerprint(finished, started.elapsed())?;
        let keygrip = only_secret_key(&home.join("private-keys-v1.d"))?;
        Ok(Generated { fingerprint, keygrip })
    }
}

impl Gpg {
    /// For a user who is logged in, gpg binds the sockets of a home in a directory of their own
    /// below `/run/user/<uid>/gnupg`, which would stay for ever. A system user has none of this.
    fn remove_socket_directory(&self, home: &Path) {
        if !Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir() {
            return;
        }
        let arguments = vec!["--homedir".into(), home.into(), "--remove-socketdir".into()];
        let job = Job {
            program: &self.gpg.with_file_name("gpgconf"),
            arguments,
            stdin: b"",
            deadline: Instant::now() + Duration::from_secs(2),
        };
        if let Err(e) = process::run(&job) {
            log::debug!("removing the socket directory of {}: {e}", home.display());
        }
    }
}

fn created_fingerprint(finished: Finished, took: Duration) -> Result<Fingerprint> {
    let words = printable(&finished.stderr);
    let failed = |how: String| Err(Error::GpgFailed { how, words: words.clone() });
    let status = Status::parse(&finished.stdout);
    match finished.end {
        None => return Err(Error::GpgTimedOut { after: took, words }),
        Some(End::Exited(0)) => {}
        Some(_) if status.no_space || words.contains("No space left on device") => {
            return Err(Error::NoSpace("generating a key".into()));
        }
        Some(End::Exited(code)) => return failed(format!("exit status {code}")),
        Some(End::Killed(signal)) => return failed(format!("killed by {signal}")),
    }
    match &status.created[..] {
        [fingerprint] => Ok(fingerprint.clone()),
        _ => failed("it did not report one created key".into()),
    }
}

/// The keygrip of the only file in `directory`, which must be a protected secret key.
fn only_secret_key(directory: &Path) -> Result<Keygrip> {
    let broken = |how: &str| Error::GpgFailed { how: how.into(), words: String::new() };
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
    let marker = b"protected-private-key";
    if !key.windows(marker.len()).any(|bytes| bytes == marker) {
        return Err(broken("it left the secret key unprotected"));
    }
    Ok(grip)
}

/// gpg's words in one line that a terminal and a log can take, at most about 2,000 bytes.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]);
    let lines: Vec<_> =
        text.lines().map(|line| line.trim().replace(char::is_control, "?")).collect();
    match lines.join("; ") {
        words if words.is_empty() => "it said nothing".into(),
        words => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(end: Option<End>, stdout: &str, stderr: &str) -> Finished {
        Finished { end, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn believes_in_a_key_only_with_exit_zero_and_one_status_line() {
        let line = "[GNUPG:] KEY_CREATED P C736DB1B28C783E150C8F0BCF189EC9B614804D3\n";
        let read = |end, stdout: &str, stderr: &str| {
            created_fingerprint(finished(end, stdout, stderr), Duration::from_secs(1))
        };
        assert!(read(Some(End::Exited(0)), line, "").is_ok());
        let twice = format!("{line}{line}");
        for (end, stdout) in [
            (Some(End::Exited(0)), ""),
            (Some(End::Exited(0)), &twice[..]),
            (Some(End::Exited(2)), line),
            (Some(End::Killed(nix::sys::signal::Signal::SIGKILL)), line),
        ] {
            assert!(matches!(read(end, stdout, ""), Err(Error::GpgFailed { .. })));
        }
        assert!(matches!(read(None, line, ""), Err(Error::GpgTimedOut { .. })));
        let full = "gpg: error writing keyblock: No space left on device";
        assert!(matches!(read(Some(End::Exited(2)), "", full), Err(Error::NoSpace(_))));
    }

    #[test]
    fn words_are_one_short_printable_line() {
        assert_eq!(printable(b"gpg: a\x1b[31m\ngpg: b\xff\r\n"), "gpg: a?[31m; gpg: b\u{fffd}");
        assert!(printable(&[b'x'; 5000]).len() <= 2000);
        assert_eq!(printable(b""), "it said nothing");
    }
}
