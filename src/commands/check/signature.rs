//! One signature, made by what signs here and verified apart: all other sections only look.

use gpg::clock;
use keystore::interrupt;
use keystore::{Agent, Home};

use super::finding::{Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::error::Error;
use crate::systemd::systemctl;

/// So many keys are looked at for one that can sign.
const CANDIDATES: usize = 8;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("signature");
    // What keeps keys from signing then has been told.
    let Ok(now) = clock::believed() else { return section };
    if !host.is_ours() || host.inspector.check_phrases_are_ours().is_err() {
        return section;
    }
    let is_current = |home: &&Home| {
        home.record.as_ref().is_some_and(|record| record.expires.is_none_or(|at| at > now))
    };
    let mut homes: Vec<_> = survey.whole().filter(is_current).collect();
    // The newest first: it was made with the GnuPG and under the settings of today.
    let made = |home: &&Home| home.record.as_ref().map(|record| record.created);
    homes.sort_by_key(|home| std::cmp::Reverse(made(home)));
    // No signal leaves something in staging.
    let _work = interrupt::work();
    let candidates = homes.into_iter().filter(|home| host.inspector.is_seen(home));
    let tried = candidates.take(CANDIDATES).find_map(|home| {
        let certificate = host.inspector.certificate(home).ok()?;
        let can_sign = certificate.signs && !certificate.revoked;
        let signed = can_sign.then(|| host.inspector.sign_as_signd(home, &certificate))?;
        // A key that has been removed meanwhile says nothing.
        (signed.is_ok() || host.inspector.is_seen(home)).then_some((home, signed))
    });
    match tried {
        None => section.note("keys", "no key that signd knows could be tried"),
        Some((home, Ok(()))) => {
            section.ok(host.name(&home.path), "signs by the agent in gnupg/, verified apart");
        }
        Some((_, Err(Error::Gpg(gpg::Error::Missing { .. })))) => {} // it has a line of its own
        Some((home, Err(e))) => {
            let remedy = match (&e, host.inspector.agent_home().agent()) {
                (Error::Gpg(gpg::Error::NoSpace { .. }), _) => "make room, then try again".into(),
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
