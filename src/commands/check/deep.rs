//! `check --deep`: gpg reads every certificate, and every secret key makes a signature with its passphrase.
//! All of it happens in staging, with several keys at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpg::Certificate;
use keystore::interrupt;
use keystore::parallel;
use keystore::remedy::quote;
use keystore::{Form, Home};

use super::expiry::SET_CLOCK;
use super::finding::{Remedy, Section};
use super::homes::{self, RESTORE};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;
use crate::commands::progress;
use crate::error::Error;

const NAME: &str = "keys (deep)";

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new(NAME);
    if !host.options.deep {
        return section;
    }
    let passphrases = host.inspector.passphrases();
    let is_sealed = |home: &Home| matches!(host.inspector.passphrase_form(home), Ok(Form::Sealed));
    let opens = passphrases.key().is_some() && passphrases.verify().is_ok();
    if !opens && survey.whole().any(is_sealed) {
        section.note("keys", "not tried: there are sealed passphrases, see above");
        return section;
    }
    let whole: Vec<_> =
        survey.homes.iter().enumerate().filter(|(_, home)| home.is_whole()).collect();
    let keys = number(whole.len(), "key", "keys");
    // After a signal, finish the keys at work and leave staging empty.
    let _work = interrupt::work();
    let bar = progress::bar(whole.len(), "tried");
    let stop = AtomicBool::new(false);
    // This cannot fail: `check` comes here only if every setting is right.
    let jobs = host.settings.jobs.get().map_or(1, |jobs| *jobs);
    let found = parallel::map(whole, jobs, |(place, home)| {
        if stop.load(Ordering::Relaxed) || interrupt::signal().is_some() {
            return None;
        }
        let mut found = Section::new(NAME);
        if judge(host, place, home, &mut found)
            .is_err_and(|error| report(host, home, &error, &mut found))
        {
            stop.store(true, Ordering::Relaxed);
        }
        bar.inc(1);
        Some(found.findings)
    });
    bar.finish_and_clear();
    let left = found.iter().filter(|found| found.is_none()).count();
    let left = (left > 0).then(|| number(left, "key was", "keys were"));
    let found: Vec<_> = found.into_iter().flatten().flatten().collect();
    match left {
        Some(left) if interrupt::signal().is_some() => {
            section.note("keys", format!("{left} not tried: interrupted by a signal"));
        }
        Some(left) => {
            let message = format!("{left} not tried: it was stopped");
            section.failed("keys", message, "see the other lines, then run check --deep again");
        }
        None if found.is_empty() => {
            let message = format!("{keys}: every certificate is whole, every secret key signs");
            section.ok("keys", message);
        }
        None => {}
    }
    section.findings.extend(found);
    section
}

/// Checks one key. `Err` is the reason why the key cannot be used.
fn judge(host: &Host, place: usize, home: &Home, section: &mut Section) -> Result<(), Error> {
    let subject = host.name(&home.path);
    let certificate = host.inspector.certificate(home)?;
    if let Some(why) = record_doubt(host, home, &certificate) {
        homes::record(host, home, &why, place, section);
    }
    if !certificate.user_ids.iter().any(|user_id| home.name_email.is_in(user_id)) {
        section.failed(
            &subject,
            "no user ID of the certificate holds this name: packages of this identity would be signed with \
             the key of another",
            "see whether the home has been renamed or copied by hand, and put it back under its own name",
        );
    }
    if certificate.revoked {
        // gpg does not sign with a revoked key, so it needs no trial signature.
        let remove = format!("remove {}", quote(home.name_email.as_str()));
        let message = "the key is revoked: nothing can be signed with it";
        section.warning(subject, message, Remedy::Command(host.command(&remove)));
        return Ok(());
    }
    if !certificate.signs {
        section.failed(subject, "the certificate is not for signing data", RESTORE);
        return Ok(());
    }
    host.inspector.try_signature(home, &certificate)
}

/// Adds a line that says why a key cannot be used. Returns whether every other key would
/// fail for the same reason.
fn report(host: &Host, home: &Home, error: &Error, section: &mut Section) -> bool {
    let subject = host.name(&home.path);
    if let Error::Gpg(gpg::Error::Clock(words)) = error {
        section.failed(subject, words, SET_CLOCK);
        return false;
    }
    let remedy = match error {
        Error::Gpg(gpg::Error::NoSpace { .. }) => "make room, then try again".into(),
        Error::Gpg(gpg::Error::Missing { .. }) => "see the section about GnuPG".into(),
        Error::Gpg(gpg::Error::TimedOut { .. }) => "try again when the host is less busy".into(),
        Error::Gpg(gpg::Error::Failed { words, .. }) if words.contains("Bad passphrase") => {
            format!("the file passphrase is not the one of this key: {RESTORE}")
        }
        _ => RESTORE.to_owned(),
    };
    section.failed(subject, format!("cannot be used: {error}"), remedy);
    matches!(error, Error::Gpg(gpg::Error::NoSpace { .. }) | Error::Gpg(gpg::Error::Missing { .. }))
}

/// Returns how `key.json` disagrees with the certificate. Looks again after a moment, as `key.json` may lag
/// behind while the key is being prolonged.
fn record_doubt(host: &Host, home: &Home, certificate: &Certificate) -> Option<String> {
    // `homes` has already reported a `key.json` that is missing or unreadable.
    home.record.as_ref()?.disagreement(certificate)?;
    std::thread::sleep(Duration::from_millis(300));
    let again = host.inspector.examine(home.name_email.clone(), host.owner.uid.as_raw())?;
    let certificate = host.inspector.certificate(&again).ok()?;
    again.record.as_ref()?.disagreement(&certificate)
}
