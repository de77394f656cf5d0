//! The settings in effect, and where each comes from.

use keystore::check_path_length;

use super::host::Host;
use super::page::Section;
use crate::error::Error;

const NAME: &str = "settings";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new(NAME);
    for (name, text, source) in &host.settings.origins {
        let text = if text.is_empty() { "none" } else { text };
        section.ok(name, format!("{text} ({source})"));
    }
    for variable in &host.settings.unknown_variables {
        section.warning(
            variable,
            "this environment variable is no setting and is ignored",
            "look for a slip in its name, or unset it",
        );
    }
    if let Err(e) = host.settings.check_expire() {
        section.failed("expire", format!("{e}: serve does not start"), "set expire to less");
    }
    if let Err(e) = check_path_length(host.state()) {
        section.failed("state_dir", e.to_string(), "set state_dir to a shorter path");
    }
    section
}

/// The section of a host whose settings could not be loaded.
pub fn failed(errors: &[Error]) -> Section {
    let mut section = Section::new(NAME);
    for error in errors {
        section.failed(
            "configuration",
            error.to_string(),
            "correct it where it is set (a file must be readable for everybody: chmod 0644), then \
             systemctl restart copr-keygen.socket",
        );
    }
    section
}
