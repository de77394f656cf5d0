//! gpg and gpg-agent: found, new enough, of one version.

use gpg::Version;

use super::host::Host;
use super::page::Section;

/// The oldest version that is known to work, and the one before which batch parameters differ.
const OLDEST_KNOWN: [u32; 3] = [2, 2, 20];
const OLDEST_POSSIBLE: [u32; 3] = [2, 1, 13];

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("GnuPG");
    let gpg = match host.settings.gnupg() {
        Ok(gpg) => gpg,
        Err(e) => {
            section.failed("gpg", e.to_string(), "restart this host");
            return section;
        }
    };
    let [program, agent] = gpg.programs().map(|path| path.to_string_lossy().into_owned());
    let first = version(&mut section, &program, gpg.version());
    let second = version(&mut section, &agent, gpg.agent_version());
    if let (Some(first), Some(second)) = (first, second) {
        if first != second {
            section.warning(
                &*agent,
                format!("is version {second}, but gpg is {first}: they are made for each other"),
                "install both from one package source, or correct the settings gpg and gpg_agent",
            );
        }
    }
    section
}

fn version(section: &mut Section, program: &str, version: gpg::Result<Version>) -> Option<Version> {
    match version {
        Ok(version) => {
            let upgrade = "upgrade GnuPG to 2.2.20 or newer";
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
