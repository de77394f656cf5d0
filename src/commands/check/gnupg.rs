//! gpg and gpg-agent: found, new enough, of one version, and not told by a file of the host to keep
//! keys elsewhere.

use std::fs;
use std::path::Path;

use gpg::Version;
use keystore::remedy::quote_path;

use super::finding::{Remedy, Section, Verdict};
use super::host::Host;

/// The oldest version that is known to work, and the one before which batch parameters differ.
const OLDEST_KNOWN: [u32; 3] = [2, 2, 20];
const OLDEST_POSSIBLE: [u32; 3] = [2, 1, 13];
/// The first version that reads [`COMMON`].
const READS_COMMON: [u32; 3] = [2, 3, 0];

/// What every program of GnuPG reads before the files of its home. No option of ours wins against it.
const COMMON: &str = "/etc/gnupg/common.conf";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("GnuPG");
    let gpg = host.settings.gnupg();
    let Some(gpg) = section.look("gpg", gpg, "restart this host") else { return section };
    let [program, agent] = gpg.programs().map(|path| path.to_string_lossy().into_owned());
    let first = version(&mut section, &program, gpg.version());
    let second = version(&mut section, &agent, gpg.agent_version());
    if let (Some(first), Some(second)) = (&first, &second) {
        if first != second {
            section.warning(
                &agent,
                format!("is version {second}, but gpg is {first}: they are made for each other"),
                "install both from one package source, or correct the settings gpg and gpg_agent",
            );
        }
    }
    let reads_common = first.is_some_and(|version| !version.is_before(READS_COMMON));
    keyboxd(Path::new(COMMON), reads_common, &mut section);
    section
}

fn version(section: &mut Section, program: &str, version: gpg::Result<Version>) -> Option<Version> {
    let upgrade = "upgrade GnuPG to 2.2.20 or newer";
    match version {
        Ok(version) => {
            if version.is_before(OLDEST_POSSIBLE) {
                section.failed(program, format!("{version} is too old to make keys"), upgrade);
            } else if version.is_before(OLDEST_KNOWN) {
                section.warning(program, format!("{version} is old and was never tried"), upgrade);
            } else {
                section.ok(program, format!("version {version}"));
            }
            Some(version)
        }
        Err(e) => {
            let remedy = match &e {
                gpg::Error::Missing { setting, .. } => {
                    format!("install GnuPG (gpg and gpg-agent), or correct the setting {setting}")
                }
                _ => format!("run {program} --version by hand and see what is wrong"),
            };
            section.failed(program, e.to_string(), remedy);
            None
        }
    }
}

/// Whether gpg is told to keep certificates in the database of keyboxd, and to ignore the keyrings of homes.
fn keyboxd(common: &Path, is_read: bool, section: &mut Section) {
    let text = fs::read(common).unwrap_or_default();
    let mut lines = text.split(|byte| *byte == b'\n');
    if !lines.any(|line| line.trim_ascii() == b"use-keyboxd") {
        return;
    }
    let (verdict, message) = match is_read {
        true => (
            Verdict::Failed,
            "says use-keyboxd: gpg ignores the keyring of a key, so none can be made",
        ),
        false => {
            (Verdict::Warning, "says use-keyboxd: with GnuPG 2.3 or newer, no key can be made")
        }
    };
    let file = quote_path(common);
    let command = format!("sed -i 's/^[[:space:]]*use-keyboxd/#&/' {file}");
    section.add(verdict, common.to_string_lossy(), message, Remedy::Command(command));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_that_is_ignored_is_told_and_the_command_mends_it() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let common = directory.path().join("common.conf");
        let verdict = |is_read| {
            let mut section = Section::new("GnuPG");
            keyboxd(&common, is_read, &mut section);
            section.findings.pop()
        };
        assert_eq!(verdict(true), None);
        fs::write(&common, "# use-keyboxd\n  use-keyboxd \nno-autostart\n")?;
        assert!(verdict(false).is_some_and(|it| it.verdict == Verdict::Warning));
        let failed = verdict(true).filter(|it| it.verdict == Verdict::Failed);
        let command = failed.and_then(|it| it.remedy.text().map(str::to_owned)).unwrap_or_default();
        std::process::Command::new("sh").arg("-c").arg(&command).status()?;
        assert_eq!(verdict(true), None, "{command}");
        Ok(())
    }
}
