//! Checks what obs-signd sees: a link to every secret key, a link to every passphrase, and nothing else.
//! obs-signd takes each entry of `phrases/` for a user who can sign.

use keystore::{LinkFault, LinkProblem};

use super::finding::{Mend, Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;
use crate::systemd::systemctl;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("links of obs-signd");
    let are_ours = host.inspector.check_phrases_are_ours();
    let advice = "see docs/sealing.md; serve does not start";
    if section.look("phrases_dir", are_ours, advice).is_none() {
        return section;
    }
    if survey.failure.is_some() {
        section.note("gnupg, phrases", "not looked at, as keys could not be read");
        return section;
    }
    if !host.is_ours() {
        section.note("gnupg, phrases", "are not ours yet, see below");
        return section;
    }
    if let Ok(Some(directory)) = host.settings.phrases_dir.get() {
        if !directory.exists() {
            let message =
                "is not there: no phrase has been opened for signd since this host was started";
            section.failed(directory.to_string_lossy(), message, open_phrases(host));
            return section.of_obs_signd();
        }
    }
    let odd = host.inspector.odd_links(&survey.homes);
    let odd = section.look("gnupg, phrases", odd, host.give_back());
    // A secret key that lies among the links may be the only one, so it fails whichever signer this host has.
    let (keys, odd): (Vec<_>, Vec<_>) =
        odd.unwrap_or_default().into_iter().partition(LinkProblem::may_be_an_only_key);
    odd.into_iter().for_each(|odd| report(host, odd, &mut section));
    let mut section = section.of_obs_signd();
    keys.into_iter().for_each(|key| report(host, key, &mut section));
    if section.is_well() {
        let keys = number(survey.whole().count(), "key", "keys");
        section.ok("gnupg, phrases", format!("{keys}, each with both links, and no others"));
    }
    section
}

/// Returns the remedy for phrases that must be opened for signd.
fn open_phrases(host: &Host) -> Remedy {
    Remedy::Command(match host.units.is_some() || host.lacks_sealing_key() {
        true => format!("systemctl restart {}", systemctl::PHRASES),
        false => host.command("phrases"),
    })
}

fn report(host: &Host, odd: LinkProblem, section: &mut Section) {
    let (subject, message) = (host.name(&odd.path), describe(&odd));
    let remedy = match (&odd.fault, odd.is_phrase()) {
        _ if odd.needs_phrase() && host.lacks_sealing_key() => open_phrases(host),
        _ if odd.can_be_mended() => Mend::Link(Box::new(odd)).into(),
        (LinkFault::Content, false) if !odd.hides_a_key() => {
            "take it over from a GnuPG home that has its certificate too (import --from)".into()
        }
        (LinkFault::Content, _) | (_, true) => host.keep_aside(&odd.path),
        // In `phrases/` signd takes such an entry for a user; here, among the secret keys, it does no harm.
        (_, false) => return section.note(subject, message),
    };
    section.failed(subject, message, remedy);
}

fn describe(odd: &LinkProblem) -> String {
    let text = match (&odd.fault, odd.is_phrase(), odd.hides_a_key()) {
        (LinkFault::Elsewhere(to), ..) => return format!("leads elsewhere, to {}", to.display()),
        (LinkFault::Stale(to), is_phrase, _) => {
            let user = if is_phrase { ", yet signd may take it for a user" } else { "" };
            return format!("is of no key{user}; leads to {}", to.display());
        }
        (LinkFault::Missing, true, _) => "the link is missing: signd does not know the key",
        (LinkFault::Missing, false, _) => "the link is missing: signd cannot sign",
        (LinkFault::File, true, true) => "is a file in place of the link, with nothing of its own",
        (LinkFault::File, true, _) => "is an empty file, which signd takes for a user",
        (LinkFault::File, false, _) => "is an empty file, not a link to a secret key",
        (LinkFault::Content, true, _) => "is a file with a content of its own, not our link",
        (LinkFault::Content, false, true) => {
            "is a file in place of the link: a copy of the secret key, or the only one; keep it"
        }
        (LinkFault::Content, false, false) => {
            "is a secret key that no home has: it may be somebody's only one"
        }
        (LinkFault::Outdated, ..) => "is not the passphrase of its key as it is now",
        (LinkFault::Leftover, ..) => "is of no key, yet signd takes it for a user",
        (LinkFault::Strange, true, _) => "is no link: signd takes it for a user",
        (LinkFault::Strange, false, _) => "does not belong here; it does no harm",
    };
    text.into()
}
