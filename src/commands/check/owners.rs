//! Checks owners and modes: the "permission denied" case. Everything in the state must belong to its owner,
//! with mode 0700 for directories and 0600 for files.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use keystore::remedy::STATE;
use keystore::{Fault, PARTS, lost_keys, remedy};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, User, access, geteuid};

use super::finding::{Mend, Remedy, Section, Verdict};
use super::host::{ACCOUNT, Host};
use super::repair::settle;
use super::survey::Survey;
use crate::commands::output::number;
use crate::error::Result;
use crate::privileges;

const NAME: &str = "owners and modes";

/// The remedies for a symbolic link in place of `keys/`, and for keys that are elsewhere.
const MOVE_BACK: &str = "rm the link, and mv -T the directory that it leads to into its place";
const PUT_BACK: &str = "put the keys back in their place first; nothing else was looked at";

/// The number of surveys at most. Repairing a mode can open a directory that the survey before could not read.
const ROUNDS: usize = 4;

/// Checks owners and modes, and surveys every home. Afterwards this process runs as the owner of the state.
/// The flag beside the findings is whether it can read the keys.
pub fn section(host: &Host, survey: &mut Survey) -> Result<(Section, bool)> {
    let mut section = Section::new(NAME);
    if !state_exists(host, &mut section) {
        return Ok((section, false));
    }
    if host.as_root && host.options.repair {
        give_back(host, &mut section);
        privileges::become_owner(host.state())?;
    }
    // Without --repair, root surveys. With it, this process is the owner by now and repairs as that.
    let only_looks = host.as_root && !host.options.repair;
    let mut is_sound = only_looks || is_owner(host, &mut section);
    if is_sound {
        is_sound = look_and_mend(host, survey, &mut section);
        if is_sound && section.is_well() {
            let count = number(survey.homes.len(), "home", "homes");
            let owner = &host.owner.name;
            let message =
                format!("all of it, with {count}, belongs to {owner}, and to nobody else");
            section.ok(host.state().to_string_lossy(), message);
        }
    }
    privileges::become_owner(host.state())?;
    let can_look = is_sound && is_owner(host, &mut section);
    Ok((section, can_look))
}

/// Whether there is a state directory; adds a line if not. Never creates it.
fn state_exists(host: &Host, section: &mut Section) -> bool {
    let state = host.state().to_string_lossy();
    if matches!(keystore::owner_of(host.state()), Ok(None)) {
        let (why, remedy) = keystore::nobodys(host.state());
        section.failed(state, why, remedy);
        return false;
    }
    let is_missing =
        |part: &&str| fs::symlink_metadata(host.part(part)).is_err_and(|e| is_not_there(&e));
    // Creating it would hide that the directory was mistyped or that its volume is not mounted.
    let make = "mount its volume, or correct the setting state_dir; on a new host, systemd-tmpfiles --create \
                copr-keygen.conf makes the directory of the package";
    let (message, advice) = match fs::metadata(host.state()) {
        Ok(found) if found.is_dir() && PARTS.iter().all(is_missing) => {
            ("is no state: it holds none of its directories".into(), make.into())
        }
        Ok(found) if found.is_dir() => return true,
        Ok(_) => ("is not a directory".into(), "move it away, or correct state_dir".into()),
        Err(e) if is_not_there(&e) => ("does not exist".into(), make.into()),
        Err(e) => (format!("cannot be looked at: {e}"), run_as(host)),
    };
    section.failed(state, message, advice);
    false
}

/// As root, gives files that belong to other users back to the owner.
fn give_back(host: &Host, section: &mut Section) {
    let strangers = keystore::give_back(host.state(), &host.owner);
    let state = host.name(host.state());
    for stranger in section.look(state, strangers, "see whether it is mounted").unwrap_or_default()
    {
        let message = not_the_owners(host, stranger.uid);
        section.settled(&host.name(&stranger.path), &message, stranger.given_back);
    }
}

/// Whether this process runs as the owner and can reach the state directory; adds a line if not.
fn is_owner(host: &Host, section: &mut Section) -> bool {
    let (state, owner) = (host.name(host.state()), &host.owner.name);
    if geteuid() == host.owner.uid {
        let reached = fs::metadata(host.state());
        if let Err(e) = &reached {
            let message = format!("{owner} cannot get there: {e}");
            section.failed(
                state,
                message,
                "let others pass through the directories above it (chmod o+x)",
            );
        }
        return reached.is_ok();
    }
    if section.is_well() {
        // If root has surveyed, the wrong owner has a line with a remedy already.
        let me = user(geteuid().as_raw());
        let message = format!("belongs to {owner}, but this is run by {me}");
        section.failed(state, message, run_as(host));
    }
    false
}

/// Surveys and repairs until nothing is left to repair. Adds every repair and the findings of the last
/// survey. Returns `false` if no section may look further.
fn look_and_mend(host: &Host, survey: &mut Survey, section: &mut Section) -> bool {
    for round in 1.. {
        let mut found = Section::new(NAME);
        let is_sound = parts(host, &mut found);
        if is_sound {
            *survey = Survey::take(host);
            survey.homes.iter().for_each(|home| report(host, &mut found, &home.faults));
        }
        let found = settle(host, survey, found).findings;
        let (mended, rest): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|finding| finding.verdict == Verdict::Repaired);
        let is_last = mended.is_empty() || round == ROUNDS;
        section.findings.extend(mended);
        if is_last {
            section.findings.extend(rest);
            return is_sound;
        }
    }
    false
}

/// Checks the directories of the state and the entries of those that hold no homes.
/// Returns `false` if something else is in the place of a directory: a link there would
/// lead every check and every repair out of the state.
fn parts(host: &Host, section: &mut Section) -> bool {
    let owner = host.owner.uid.as_raw();
    // The units run under this account. A container has neither units nor the account.
    let has_units = host.state() == Path::new(STATE) && host.units.is_some();
    if has_units && matches!(User::from_name(ACCOUNT), Ok(None)) {
        let command = Remedy::Command("systemd-sysusers copr-keygen.conf".into());
        section.failed(ACCOUNT, "there is no such account, which is to own the keys", command);
    }
    // The state directory itself may be given as a symbolic link.
    let state = fs::canonicalize(host.state());
    match state.and_then(|state| Ok((fs::symlink_metadata(&state)?, state))) {
        Ok((found, state)) if keystore::is_volume(&found) && found.uid() != owner => {
            let message = format!(
                "belongs to {}, and group {} may write in it: whoever is in that group can rename or \
                 replace keys/ and the other parts of the state, but not read them; chmod +t by its owner \
                 keeps them from that",
                user(found.uid()),
                found.gid()
            );
            section.note(state.to_string_lossy(), message);
        }
        Ok((found, state)) => report(host, section, &keystore::judge(&state, &found, owner)),
        Err(_) => return false, // is_owner reports the reason
    }
    // Repair nothing while the keys are elsewhere: the links to them show that they were here.
    let lost = lost_keys::check(host.state()).err().filter(|_| host.is_ours());
    if let Some(e) = lost {
        section.failed("keys", e.to_string(), PUT_BACK);
        return false;
    }
    for part in PARTS {
        let path = host.part(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                report(host, section, &keystore::judge(&path, &found, owner));
                may_write(section, part, &path);
            }
            Ok(found) => {
                let message =
                    "is not a directory: the service does not start, and keys were not looked at";
                // The link may lead to all keys: an empty directory in its place would hide them.
                let remedy = match found.is_symlink() {
                    true if part == "keys" => MOVE_BACK.into(),
                    true if path.is_dir() => Remedy::Command(remedy::replace_link(&path)),
                    _ => host.keep_aside(&path),
                };
                section.failed(part, message, remedy);
                return false;
            }
            Err(e) if is_not_there(&e) => section.failed(part, "is missing", Mend::Part(path)),
            Err(e) => section.failed(part, format!("cannot be looked at: {e}"), host.give_back()),
        }
    }
    for directory in ["gnupg", "gnupg/private-keys-v1.d", "pool", "staging", "trash"] {
        if let Err(e) = entries(host, section, &host.part(directory)) {
            section.failed(directory, format!("cannot be read: {e}"), host.give_back());
        }
    }
    true
}

/// Checks the entries of a directory of the state. Skips symbolic links: their owner and
/// mode mean nothing, and there are many.
fn entries(host: &Host, section: &mut Section, directory: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link || PARTS.iter().any(|part| host.part(part) == entry.path()) {
            continue;
        }
        match entry.metadata() {
            Ok(found) => {
                let faults = keystore::judge(&entry.path(), &found, host.owner.uid.as_raw());
                report(host, section, &faults);
            }
            Err(e) if is_not_there(&e) => {} // the entry is gone by now
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn may_write(section: &mut Section, part: &str, path: &Path) {
    // EACCES: the mode forbids it, which has a line of its own.
    let Some(errno) = access(path, AccessFlags::W_OK).err().filter(|it| *it != Errno::EACCES)
    else {
        return;
    };
    let remedy = match errno {
        Errno::EROFS => "mount the file system for writing; see dmesg for why not",
        _ => "see its mode and its mount options",
    };
    section.failed(part, format!("cannot be written: {errno}"), remedy);
}

/// Adds a line for each wrong owner and mode among the faults.
fn report(host: &Host, section: &mut Section, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Owner(path, uid) => {
                section.failed(host.name(path), not_the_owners(host, *uid), host.give_back());
            }
            Fault::Mode(path, mode, wanted) => {
                let message = format!("has mode {mode:04o} instead of {wanted:04o}");
                section.failed(host.name(path), message, Mend::Mode(path.clone(), *wanted));
            }
            _ => {}
        }
    }
}

fn run_as(host: &Host) -> String {
    match host.owner.name.as_str() {
        "root" => "run check as root".into(),
        owner => format!("run check as root or as {owner}"),
    }
}

fn not_the_owners(host: &Host, uid: u32) -> String {
    format!("belongs to {}, not to {}", user(uid), host.owner.name)
}

/// Returns the name of a user, or `uid` and the number if the number has no name.
pub fn user(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

fn is_not_there(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
