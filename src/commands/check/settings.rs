//! Lists the settings that are not at their defaults, and where each was set.

use keystore::check_path_length;

use super::finding::Section;
use super::host::Host;
use crate::error::Error;
use crate::settings::DEFAULT;

const NAME: &str = "settings";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new(NAME);
    let is_set = |source: &str| source != DEFAULT;
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
    let files = [&host.settings.metrics_file, &host.settings.signd.metrics_file];
    for file in files.into_iter().filter_map(|file| file.get().ok()?.as_ref()) {
        if file.extension().is_none_or(|end| end != "prom") {
            let message = "does not end in .prom: node_exporter does not read it";
            section.warning(file.to_string_lossy(), message, "give it a name that ends in .prom");
        }
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
