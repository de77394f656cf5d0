//! Owners and modes: the "permission denied" case. Everything in the state belongs to its owner,
//! directories are 0700 and files 0600.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use keystore::remedy::STATE;
use keystore::{self, Fault, PARTS};
use nix::unistd::{AccessFlags, User, access, geteuid};

use super::homes::Survey;
use super::host::{ACCOUNT, Host};
use super::page::{Section, number};

/// Whether there is a state directory; else the line that says so is added. It is never made here.
pub fn state_exists(host: &Host, section: &mut Section) -> bool {
    let state = host.state().to_string_lossy();
    let make = "systemd-tmpfiles --create copr-keygen.conf, or correct the setting state_dir";
    let is_missing = |part: &&str| {
        fs::symlink_metadata(host.part(part)).is_err_and(|e| e.kind() == ErrorKind::NotFound)
    };
    if matches!(keystore::owner_of(host.state()), Ok(None)) {
        let (why, remedy) = keystore::nobodys(host.state());
        section.failed(state, why, remedy);
        return false;
    }
    match fs::metadata(host.state()) {
        // Making it would hide that the directory was mistyped, or that what was mounted there is gone.
        Ok(found) if found.is_dir() && PARTS.iter().all(is_missing) => {
            section.failed(state, "is no state: it holds none of its directories", make);
            false
        }
        Ok(found) if found.is_dir() => true,
        Ok(_) => {
            section.failed(state, "is not a directory", "move it away, or correct state_dir");
            false
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            section.failed(state, "does not exist", make);
            false
        }
        Err(e) => {
            let remedy = format!("run check as root or as {}", host.owner.name);
            section.failed(state, format!("cannot be looked at: {e}"), remedy);
            false
        }
    }
}

/// As root: gives back what belongs to somebody else.
pub fn give_back(host: &Host, section: &mut Section) {
    match keystore::give_back(host.state(), &host.owner) {
        Ok(strangers) => {
            for stranger in strangers {
                let message = not_the_owners(host, stranger.uid);
                section.mended(host.name(&stranger.path), message, stranger.given_back);
            }
        }
        Err(e) => {
            section.failed(host.name(host.state()), e.to_string(), "see whether it is mounted");
        }
    }
}

/// Whether this process is the owner by now and gets there; else the line that says so is added.
pub fn is_owner(host: &Host, section: &mut Section) -> bool {
    if geteuid() == host.owner.uid {
        let reached = fs::metadata(host.state());
        if let Err(e) = &reached {
            let message = format!("{} cannot get there: {e}", host.owner.name);
            let remedy = "chmod o+x the directories above it";
            section.failed(host.name(host.state()), message, remedy);
        }
        return reached.is_ok();
    }
    if section.is_well() {
        // As root, whose it is has a line already, with its remedy.
        let remedy = format!("run check as root or as {}", host.owner.name);
        let message = format!(
            "belongs to {}, but this is run by {}",
            host.owner.name,
            user(geteuid().as_raw())
        );
        section.failed(host.name(host.state()), message, remedy);
    }
    false
}

/// The directories of the state, and what is directly in those that hold no homes. `false` when one of
/// them is something else: a link in its place would lead every look, and every repair, out of the
/// state.
pub fn parts(host: &Host, section: &mut Section) -> bool {
    let owner = host.owner.uid.as_raw();
    if host.state() == Path::new(STATE) && matches!(User::from_name(ACCOUNT), Ok(None)) {
        section.failed(
            ACCOUNT,
            "there is no such account, which is to own the keys",
            "systemd-sysusers copr-keygen.conf",
        );
    }
    // The state directory itself may be told by a link.
    let state = fs::canonicalize(host.state());
    match state.and_then(|state| Ok((fs::symlink_metadata(&state)?, state))) {
        Ok((found, state)) if keystore::is_volume(&found) && found.uid() != owner => {
            section.note(
                state.to_string_lossy(),
                format!(
                    "belongs to {}, and group {} may write in it: whoever is in that group can rename or \
                     replace keys/ and the other parts of the state, but not read them; chmod +t by its owner \
                     keeps them from that",
                    user(found.uid()),
                    found.gid()
                ),
            );
        }
        Ok((found, state)) => report(host, section, &keystore::judge(&state, &found, owner)),
        Err(_) => return false, // is_owner says why
    }
    for part in PARTS {
        let path = host.part(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                report(host, section, &keystore::judge(&path, &found, owner));
                may_write(host, section, &path);
            }
            Ok(_) => {
                section.failed(
                    part,
                    "is not a directory: the service does not start, and keys were not looked at",
                    format!("move {} away, then {}", host.quoted(&path), host.repair()),
                );
                return false;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let message = "is missing";
                if host.options.repair {
                    section.mended(part, message, keystore::make_part(&path));
                } else {
                    section.failed(part, message, host.repair());
                }
            }
            Err(e) => section.failed(
                part,
                format!("cannot be looked at: {e}"),
                format!("as root: {}", host.repair()),
            ),
        }
    }
    for directory in ["gnupg", "gnupg/private-keys-v1.d", "pool", "staging", "trash"] {
        let path = host.part(directory);
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        let unread = |section: &mut Section, e: &std::io::Error| {
            section.failed(
                directory,
                format!("cannot be read: {e}"),
                format!("as root: {}", host.repair()),
            );
        };
        let entries: std::io::Result<Vec<_>> =
            fs::read_dir(path).and_then(|entries| entries.collect());
        let entries = entries.unwrap_or_else(|e| {
            unread(section, &e);
            Vec::new()
        });
        for entry in entries {
            // Links have neither owner nor mode that mean anything, and there are many.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let is_part = PARTS.iter().any(|part| host.part(part) == entry.path());
            if is_link || is_part {
                continue;
            }
            match entry.metadata() {
                Ok(found) => report(host, section, &keystore::judge(&entry.path(), &found, owner)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {} // it is done with by now
                Err(e) => unread(section, &e),
            }
        }
    }
    true
}

fn may_write(host: &Host, section: &mut Section, path: &Path) {
    if let Err(errno) = access(path, AccessFlags::W_OK) {
        let remedy = match errno {
            nix::errno::Errno::EROFS => "mount the file system for writing; see dmesg for why not",
            _ => "see its mode and its mount options",
        };
        // A mode that forbids it has a line of its own.
        if errno != nix::errno::Errno::EACCES {
            section.failed(host.name(path), format!("cannot be written: {errno}"), remedy);
        }
    }
}

/// What the survey has seen, and already mended, of the homes.
pub fn homes(host: &Host, survey: &Survey, section: &mut Section) {
    for (subject, message, result) in &survey.mended_modes {
        match result {
            None => section.repaired(subject, message),
            Some(e) => section.failed(
                subject,
                format!("{message}; it could not be mended: {e}"),
                format!("as root: {}", host.repair()),
            ),
        }
    }
    for home in &survey.homes {
        report(host, section, &home.faults);
    }
    if section.is_well() {
        let count = number(survey.homes.len(), "home", "homes");
        section.ok(
            host.state().to_string_lossy(),
            format!("all of it, with {count}, belongs to {}, and to nobody else", host.owner.name),
        );
    }
}

/// Adds a line for every owner and mode among the faults, after mending the modes if that is wanted.
fn report(host: &Host, section: &mut Section, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Owner(path, uid) => section.failed(
                host.name(path),
                not_the_owners(host, *uid),
                format!("as root: {}", host.repair()),
            ),
            Fault::Mode(path, mode, wanted) if host.options.repair => {
                section.mended(
                    host.name(path),
                    wrong_mode(*mode, *wanted),
                    keystore::set_mode(path, *wanted),
                );
            }
            Fault::Mode(path, mode, wanted) => {
                section.failed(host.name(path), wrong_mode(*mode, *wanted), host.repair());
            }
            _ => {}
        }
    }
}

pub fn wrong_mode(mode: u32, wanted: u32) -> String {
    format!("has mode {mode:04o} instead of {wanted:04o}")
}

fn not_the_owners(host: &Host, uid: u32) -> String {
    format!("belongs to {}, not to {}", user(uid), host.owner.name)
}

fn user(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}
