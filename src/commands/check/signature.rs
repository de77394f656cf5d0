//! Makes one signature with the signer of this host and verifies it separately. Without
//! `--deep`, all other sections only inspect.

use gpg::{Certificate, clock};
use keystore::interrupt;
use keystore::{Agent, Home, SigningKeys};
use sha2::Digest as _;
use signer::algorithm::Hash;
use signer::request::{Command, Digest};
use signer::{Policy, Signer};

use super::finding::{Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::systemd::systemctl;

/// The number of keys that are tried at most to find one that can sign.
const CANDIDATES: usize = 8;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("signature");
    // A clock that cannot be right has a line of its own in `expiry`.
    let Ok(now) = clock::believed() else { return section };
    let ours = host.who_signs.ours;
    if !ours && (!host.is_ours() || host.inspector.check_phrases_are_ours().is_err()) {
        return section;
    }
    if ours && host.lacks_sealing_key() {
        section.note("keys", "not tried: there are sealed passphrases, see above");
        return section;
    }
    let is_current = |home: &&Home| {
        home.record.as_ref().is_some_and(|record| record.expires.is_none_or(|at| at > now))
    };
    let mut homes: Vec<_> = survey.whole().filter(is_current).collect();
    // Try the newest key first: it was made with the current GnuPG and the current settings.
    let made = |home: &&Home| home.record.as_ref().map(|record| record.created);
    homes.sort_by_key(|home| std::cmp::Reverse(made(home)));
    // Let the trial finish after a signal, so that nothing stays in staging.
    let _work = interrupt::work();
    let is_seen = |home: &Home| match ours {
        true => home.path.exists(),
        false => host.inspector.is_seen(home),
    };
    let candidates = homes.into_iter().filter(|home| is_seen(home));
    let tried = candidates.take(CANDIDATES).find_map(|home| {
        let certificate = host.inspector.certificate(home).ok()?;
        let can_sign = certificate.signs && !certificate.revoked;
        let signed = can_sign.then(|| match ours {
            true => sign(host, home, &certificate),
            false => host.inspector.sign_as_signd(home, &certificate),
        })?;
        // A failure with a key that was removed meanwhile proves nothing.
        (signed.is_ok() || is_seen(home)).then_some((home, signed))
    });
    match tried {
        None => section.note("keys", "no key that signd knows could be tried"),
        Some((home, Ok(()))) => {
            let by = if ours { "as copr-keygen signd does" } else { "by the agent in gnupg/" };
            section.ok(host.name(&home.path), format!("signs {by}, verified apart"));
        }
        Some((_, Err(Error::Gpg(gpg::Error::Missing { .. })))) => {} // a missing gpg has its own line
        Some((home, Err(e))) => {
            let remedy = match (&e, host.inspector.agent_home().agent()) {
                (Error::Gpg(gpg::Error::NoSpace { .. }), _) => "make room, then try again".into(),
                _ if ours => "see the other lines; check --deep tries every key by itself".into(),
                (_, Agent::Answers { pid, .. }) => Remedy::Command(
                    systemctl::restart_signd_of(pid).unwrap_or_else(|| format!("kill {pid}")),
                ),
                _ => "see the other lines; check --deep tries every key by itself".into(),
            };
            section.failed(
                host.name(&home.path),
                format!("cannot sign as signd does: {e}"),
                remedy,
            );
        }
    }
    section
}

/// Signs with the key of a home, through the code of `copr-keygen signd`; gpg verifies the signature.
fn sign(host: &Host, home: &Home, certificate: &Certificate) -> Result<()> {
    let keys = SigningKeys::new(&host.settings.keystore()?, host.settings.gnupg()?);
    let signer = Signer::new(keys, Policy::default());
    let now = u32::try_from(clock::now()?).unwrap_or(u32::MAX).to_be_bytes();
    // A version 3 signature also hashes its class (0: binary data) and its creation time.
    let class_and_time = [&[0][..], &now].concat();
    let digest = sha2::Sha256::digest([gpg::SAMPLE, &class_and_time].concat());
    let digest =
        Digest { bytes: digest.to_vec(), class_and_time: [0, now[0], now[1], now[2], now[3]] };
    let command = Command::Sign {
        user: home.name_email.to_string(),
        hash: Hash::Sha256,
        digests: vec![digest],
    };
    let signatures =
        signer.reply(&command, |_| true).answer.map_err(|why| Error::Partly(why.to_string()))?;
    host.inspector.verify_apart(home, certificate, &signatures.concat())
}
