//! Lists the settings that are not at their defaults, and where each was set.

use keystore::check_path_length;

use super::finding::Section;
use super::host::Host;
use crate::error::Error;

const NAME: &str = "settings";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new(NAME);
    let is_set = |source: &str| source != "the default";
    for (name, text, source) in host.settings.origins.iter().filter(|(.., it)| is_set(it)) {
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
    section.look("state_dir", check_path_length(host.state()), "set state_dir to a shorter path");
    section
}

/// Returns the section for a host whose settings could not be loaded.
pub fn failed(errors: &[Error]) -> Section {
    let mut section = Section::new(NAME);
    for error in errors {
        section.failed(
            "configuration",
            error.to_string(),
            "correct it where it is set; a file there must be readable for everybody",
        );
    }
    section
}
