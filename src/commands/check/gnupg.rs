//! Checks gpg and gpg-agent: both must be installed, new enough and of one version. No system-wide file may
//! make them keep keys elsewhere.

use std::path::Path;

use gpg::{KeyLength, KeyParameters, Lifetime, UserId, Version};
use keystore::remedy::quote_path;

use super::finding::{Remedy, Section, Verdict};
use super::host::Host;
use crate::commands::sign_conf::read_text;

/// The oldest version that is known to work, and the oldest that can: batch parameters differ before it.
const OLDEST_KNOWN: [u32; 3] = [2, 2, 20];
const OLDEST_POSSIBLE: [u32; 3] = [2, 1, 13];
/// The first version that reads [`COMMON`].
const READS_COMMON: [u32; 3] = [2, 3, 0];

/// The file that every GnuPG program reads before those of its home. No command line option overrides it.
const COMMON: &str = "/etc/gnupg/common.conf";

/// The file that every gpg reads first, even with --no-options.
const GLOBAL: &str = "/etc/gnupg/gpg.conf";
/// The options in that file that have no effect here: each gpg that copr-keygen runs has
/// them on its command line.
const OVERRULED: [&str; 2] = ["default-sig-expire", "trust-model"];
/// The options in that file that make an operation fail, whatever their value: a key is not made, not prolonged, or
/// does not sign.
const BREAKING: [&str; 16] = [
    "agent-program",
    "dry-run",
    "export-filter",
    "faked-system-time",
    "forbid-gen-key",
    "import-filter",
    "import-options",
    "interactive",
    "multifile",
    "no-autostart",
    "no-default-keyring",
    "no-keyring",
    "output",
    "passphrase-fd",
    "passphrase-file",
    "primary-keyring",
];

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
    global_options(Path::new(GLOBAL), || makes_keys(host), &mut section);
    section
}

/// Makes a key and throws it away. Returns why gpg cannot make one, if it cannot.
fn makes_keys(host: &Host) -> Option<String> {
    let user_id = UserId::parse("copr-keygen check", None, "check#check@localhost").ok()?;
    let key = KeyParameters { user_id, length: KeyLength::Rsa2048, lifetime: Lifetime::FOREVER };
    match host.inspector.try_to_make(&key) {
        Err(keystore::Error::Gpg(e @ gpg::Error::Failed { .. })) => Some(e.to_string()),
        _ => None, // something else was in the way
    }
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

/// Checks whether `common` tells gpg to keep certificates in keyboxd's database and ignore the keyrings of
/// homes. `is_read` is whether the installed version reads that file.
fn keyboxd(common: &Path, is_read: bool, section: &mut Section) {
    let text = read_text(common).unwrap_or_default();
    if !text.lines().any(|line| line.trim_ascii() == "use-keyboxd") {
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

/// Checks the options that `path` sets for every gpg of the host, except those in [`OVERRULED`]. With options whose
/// effect is not known, `makes_keys` tells whether keys can be made, and if not, why.
fn global_options(path: &Path, makes_keys: impl FnOnce() -> Option<String>, section: &mut Section) {
    let text = read_text(path).unwrap_or_default();
    let options = text.lines().enumerate().filter_map(|(at, line)| {
        let name = line.split_whitespace().next().filter(|name| !name.starts_with('#'))?;
        (!OVERRULED.contains(&name)).then_some((at + 1, name))
    });
    let (breaking, others): (Vec<_>, Vec<_>) =
        options.partition(|(_, name)| BREAKING.contains(name));
    let trouble = if others.is_empty() || !breaking.is_empty() { None } else { makes_keys() };
    let (verdict, effect) = match trouble {
        Some(why) => (Verdict::Failed, format!("no key can be made: {why}")),
        None => (Verdict::Warning, "it may change how keys are made and used".into()),
    };
    let breaks = "keys are not made, not prolonged, or do not sign".to_owned();
    let told = [(breaking, Verdict::Failed, breaks), (others, verdict, effect)];
    for (lines, verdict, why) in told.into_iter().filter(|(lines, ..)| !lines.is_empty()) {
        let names: Vec<_> = lines.iter().map(|(_, name)| *name).collect();
        let message = format!("says {} to every gpg of this host: {why}", names.join(", "));
        let edits: Vec<_> = lines.iter().map(|(at, _)| format!("{at}s/^/#/")).collect();
        let command = format!("sed -i '{}' {}", edits.join(";"), quote_path(path));
        section.add(verdict, path.to_string_lossy(), message, Remedy::Command(command));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[test]
    fn options_for_every_gpg_are_told_and_the_commands_mend_them() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("gpg.conf");
        let findings = || {
            let mut section = Section::new("GnuPG");
            global_options(&path, || None, &mut section);
            section.findings
        };
        assert_eq!(findings(), []);
        fs::write(&path, "# a\n\n import-options x\nno-greeting\noutput 'y\ntrust-model tofu")?;
        let found = findings();
        let told: Vec<_> = found.iter().map(|it| (it.verdict, &it.message[..30])).collect();
        let failed = (Verdict::Failed, "says import-options, output to");
        assert_eq!(told, [failed, (Verdict::Warning, "says no-greeting to every gpg ")]);
        for command in found.iter().filter_map(|it| it.remedy.text()) {
            std::process::Command::new("sh").arg("-c").arg(command).status()?;
        }
        assert_eq!(findings(), []);
        // Whether an option that is in no list does harm is found out by making a key.
        fs::write(&path, "no-such-option\n")?;
        let mut section = Section::new("GnuPG");
        global_options(&path, || Some("invalid option".into()), &mut section);
        let found = section.findings.pop();
        let told = found.map(|it| (it.verdict, it.message.contains("no key can be made: invalid")));
        assert_eq!(told, Some((Verdict::Failed, true)));
        Ok(())
    }
}
