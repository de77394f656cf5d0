//! What obs-signd sees: a link to every secret key, a link to every passphrase, and nothing else. It
//! takes each entry of `phrases/` for a user who can sign.

use keystore::{LinkFault, LinkProblem};

use super::homes::Survey;
use super::host::Host;
use super::page::{Section, number};
use super::units;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("links of obs-signd");
    if let Err(e) = host.inspector.check_phrases_are_ours() {
        section.failed("phrases_dir", e.to_string(), "see docs/sealing.md; serve does not start");
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
            let remedy = match units::under_systemd(host) {
                true => format!("systemctl restart {}", units::PHRASES),
                false => host.command("phrases"),
            };
            let message =
                "is not there: no phrase has been opened for signd since this host was started";
            section.failed(directory.display().to_string(), message, remedy);
            return section;
        }
    }
    match host.inspector.odd_links(&survey.homes) {
        Ok(odd) => odd.iter().for_each(|odd| report(host, odd, &mut section)),
        Err(e) => section.failed("gnupg, phrases", e.to_string(), host.repair()),
    }
    if section.is_well() {
        let keys = number(survey.whole().count(), "key", "keys");
        section.ok("gnupg, phrases", format!("{keys}, each with both links, and no others"));
    }
    section
}

fn report(host: &Host, odd: &LinkProblem, section: &mut Section) {
    let subject = host.name(&odd.path);
    let message = describe(odd);
    if odd.needs_phrase() && host.lacks_sealing_key() {
        section.failed(subject, message, format!("systemctl restart {}", units::PHRASES));
        return;
    }
    if odd.can_be_mended() {
        if host.options.repair {
            section.mended(subject, message, host.inspector.mend_link(odd));
        } else {
            section.failed(subject, message, host.repair());
        }
        return;
    }
    let path = host.quoted(&odd.path);
    match (&odd.fault, odd.is_phrase()) {
        (LinkFault::Content, true) => {
            let repair = host.repair();
            let remedy = format!("keep what is in it: mv {path} /root/, then {repair}");
            section.failed(subject, message, remedy);
        }
        (LinkFault::Content, false) if odd.hides_a_key() => section.failed(
            subject,
            message,
            format!(
                "compare it with the key's own file in keys/, keep it: mv {path} /root/, then {}",
                host.repair()
            ),
        ),
        (LinkFault::Content, false) => section.failed(
            subject,
            message,
            format!(
                "{} takes it over, with its certificate",
                host.command("import --from GNUPGHOME")
            ),
        ),
        // signd takes these for users, in the other directory they mean nothing.
        (_, true) => section.failed(subject, message, format!("move it away: mv {path} /root/")),
        (_, false) => section.note(subject, message),
    }
}

fn describe(odd: &LinkProblem) -> String {
    match (&odd.fault, odd.is_phrase(), odd.hides_a_key()) {
        (LinkFault::Missing, true, _) => "the link is missing: signd does not know the key".into(),
        (LinkFault::Missing, false, _) => "the link is missing: signd cannot sign".into(),
        (LinkFault::Elsewhere(to), ..) => format!("leads elsewhere, to {}", to.display()),
        (LinkFault::Stale(to), true, _) => {
            format!("is of no key, yet signd may take it for a user; leads to {}", to.display())
        }
        (LinkFault::Stale(to), false, _) => format!("is of no key; leads to {}", to.display()),
        (LinkFault::File, true, true) => {
            "is a file in place of the link, with nothing of its own".into()
        }
        (LinkFault::File, true, _) => "is an empty file, which signd takes for a user".into(),
        (LinkFault::File, false, _) => "is an empty file, not a link to a secret key".into(),
        (LinkFault::Content, true, _) => "is a file with a content of its own, not our link".into(),
        (LinkFault::Content, false, true) => {
            "is a file in place of the link: a copy of the secret key, or the only one".into()
        }
        (LinkFault::Content, false, false) => {
            "is a secret key that no home has: it may be somebody's only one".into()
        }
        (LinkFault::Outdated, ..) => "is not the passphrase of its key as it is now".into(),
        (LinkFault::Leftover, ..) => "is of no key, yet signd takes it for a user".into(),
        (LinkFault::Strange, true, _) => "is no link: signd takes it for a user".into(),
        (LinkFault::Strange, false, _) => "does not belong here; it does no harm".into(),
    }
}
