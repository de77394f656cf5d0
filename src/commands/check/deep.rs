//! `--deep`: gpg looks at every certificate, and every secret key makes a signature with its
//! passphrase. All of it in staging, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gpg::{Certificate, clock};
use keystore::{Form, Home, KeyRecord, interrupt};

use super::homes::{self, Survey};
use super::host::Host;
use super::page::{Section, number};
use crate::commands::progress;
use crate::error::Error;

/// What gpg says against a key.
enum Doubt {
    /// `key.json` is wrong.
    Record(String),
    /// The certificate says that it cannot, or will not, be used.
    Certificate(&'static str),
    /// It is revoked.
    Revoked,
    /// None of its user IDs is of this identity.
    Name,
    /// Nothing can be made of it.
    Failed(Error),
}

pub fn section(host: &Host, survey: &mut Survey) -> Section {
    let mut section = Section::new("keys (deep)");
    let passphrases = host.inspector.passphrases();
    let is_sealed = |home: &Home| matches!(host.inspector.passphrase_form(home), Ok(Form::Sealed));
    let opens = passphrases.key().is_some() && passphrases.verify().is_ok();
    if !opens && survey.whole().any(is_sealed) {
        section.note("keys", "not tried: there are sealed passphrases, see above");
        return section;
    }
    let mut doubts = Vec::new();
    {
        let whole: Vec<(usize, &Home)> =
            survey.homes.iter().enumerate().filter(|(_, home)| home.is_whole()).collect();
        let (found, tried) = try_all(host, &whole);
        doubts.extend(found);
        if tried < whole.len() && interrupt::signal().is_some() {
            let left = number(whole.len() - tried, "key", "keys");
            section.note("keys", format!("{left} were not tried: interrupted by a signal"));
        } else if tried < whole.len() {
            section.failed(
                "keys",
                format!(
                    "{} were not tried: it was stopped",
                    number(whole.len() - tried, "key", "keys")
                ),
                format!("see the other lines, then {}", host.command("check --deep")),
            );
        } else if doubts.is_empty() {
            let keys = number(tried, "key", "keys");
            section
                .ok("keys", format!("{keys}: every certificate is whole, every secret key signs"));
        }
    }
    doubts.sort_by_key(|(place, _)| *place);
    for (place, doubt) in doubts {
        let Some(home) = survey.homes.get_mut(place) else { continue };
        report(host, home, doubt, &mut section);
    }
    section
}

/// What there is to be said against the keys, by place in the list of all, and how many were tried.
fn try_all(host: &Host, whole: &[(usize, &Home)]) -> (Vec<(usize, Doubt)>, usize) {
    // A signal lets the keys at work finish and leaves staging empty.
    let _work = interrupt::work();
    let bar = progress::bar(whole.len(), "tried");
    let doubts = Mutex::new(Vec::new());
    let (next, tried, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let Some((place, home)) = whole.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let found = doubts_about(host, home);
            let hopeless = |doubt: &Doubt| {
                matches!(
                    doubt,
                    Doubt::Failed(
                        Error::Gpg(gpg::Error::NoSpace { .. })
                            | Error::Gpg(gpg::Error::Missing { .. })
                    )
                )
            };
            if found.iter().any(hopeless) || interrupt::signal().is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            tried.fetch_add(1, Ordering::Relaxed);
            if let Ok(mut doubts) = doubts.lock() {
                doubts.extend(found.into_iter().map(|doubt| (*place, doubt)));
            }
            bar.inc(1);
        }
    };
    // A page is shown only where every setting is right.
    let jobs = host.settings.jobs.get().map_or(1, |jobs| *jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(whole.len()) {
            scope.spawn(worker);
        }
    });
    bar.finish_and_clear();
    let doubts = doubts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    (doubts, tried.into_inner())
}

fn doubts_about(host: &Host, home: &Home) -> Vec<Doubt> {
    let certificate = match host.inspector.certificate(home) {
        Ok(certificate) => certificate,
        Err(e) => return vec![Doubt::Failed(e)],
    };
    let mut doubts = Vec::new();
    doubts.extend(record_doubt(host, home, &certificate));
    if !certificate.user_ids.iter().any(|user_id| home.name_email.is_in(user_id)) {
        doubts.push(Doubt::Name);
    }
    if certificate.revoked {
        doubts.push(Doubt::Revoked);
        return doubts; // gpg does not sign with it
    }
    if !certificate.signs {
        doubts.push(Doubt::Certificate("is not for signing data"));
        return doubts;
    }
    if let Err(e) = host.inspector.try_signature(home, &certificate) {
        doubts.push(Doubt::Failed(e));
    }
    doubts
}

/// What `key.json` says otherwise than the certificate. One that is being prolonged may be behind for
/// a moment, so it gets another look.
fn record_doubt(host: &Host, home: &Home, certificate: &Certificate) -> Option<Doubt> {
    // One that is missing or cannot be read has been told already.
    disagreement(home.record.as_ref()?, certificate)?;
    std::thread::sleep(Duration::from_millis(300));
    let again = host.inspector.examine(home.name_email.clone(), host.owner.uid.as_raw())?;
    let certificate = host.inspector.certificate(&again).ok()?;
    disagreement(again.record.as_ref()?, &certificate).map(Doubt::Record)
}

fn disagreement(record: &KeyRecord, certificate: &Certificate) -> Option<String> {
    let date = |at: Option<u64>| at.map_or("never".to_owned(), clock::timestamp);
    if record.fingerprint != certificate.fingerprint {
        return Some("has another fingerprint than the certificate".into());
    }
    if record.expires != certificate.expires {
        let (cached, real) = (date(record.expires), date(certificate.expires));
        return Some(format!("says that the key expires {cached}, the certificate says {real}"));
    }
    if record.created != certificate.created || record.algorithm != certificate.algorithm {
        return Some("has another time of creation or algorithm than the certificate".into());
    }
    None
}

fn report(host: &Host, home: &mut Home, doubt: Doubt, section: &mut Section) {
    let subject = host.name(&home.path);
    let restore = homes::restore(host, home);
    match doubt {
        Doubt::Record(why) => homes::record(host, home, &why, section),
        Doubt::Certificate(why) => {
            section.failed(subject, format!("the certificate {why}"), restore)
        }
        Doubt::Revoked => section.warning(
            subject,
            "the key is revoked: nothing can be signed with it",
            host.command(&format!("remove {}", super::page::quote(home.name_email.as_str()))),
        ),
        Doubt::Name => section.failed(
            subject,
            "no user ID of the certificate holds this name: packages of this identity would be signed with \
             the key of another",
            "see whether the home has been renamed or copied by hand, and put it back under its own name",
        ),
        Doubt::Failed(e) => {
            let remedy = match &e {
                Error::Gpg(gpg::Error::Clock(_)) => super::expiry::SET_CLOCK.into(),
                Error::Gpg(gpg::Error::NoSpace { .. }) => "make room, then try again".into(),
                Error::Gpg(gpg::Error::Missing { .. }) => "see the section about GnuPG".into(),
                Error::Gpg(gpg::Error::TimedOut { .. }) => "try again when the host is less busy".into(),
                Error::Gpg(gpg::Error::Failed { words, .. }) if words.contains("Bad passphrase") => {
                    format!("the file passphrase is not the one of this key: {restore}")
                }
                _ => restore,
            };
            let message = match &e {
                Error::Gpg(gpg::Error::Clock(words)) => words.clone(),
                e => format!("cannot be used: {e}"),
            };
            section.failed(subject, message, remedy);
        }
    }
}
