//! Text for what an import left behind in the old home: files that it cannot read, and phrases without a key.

use std::fmt::Write as _;
use std::path::Path;

use gpg::text::printable;
use keystore::ImportReport;
use keystore::remedy::{STATE, quote_path};

use crate::cli::Import;
use crate::settings::Settings;

/// Returns the command line that makes a copy of the home with all files in a readable form and imports from
/// it. `None` if no command can do that.
pub fn way_out(
    report: &ImportReport,
    home: &Path,
    phrases: Option<&Path>,
    settings: &Settings,
    options: &Import,
) -> Option<String> {
    let (mut command, copy) = report.way_out(home)?;
    let _ = write!(command, " && copr-keygen import --from {}", quote_path(&copy));
    if let Some(phrases) = phrases {
        let _ = write!(command, " --phrases {}", quote_path(phrases));
    }
    if !options.protect {
        command.push_str(" --protect no");
    }
    if settings.state_dir != Path::new(STATE) {
        let _ = write!(command, " --state-dir {}", quote_path(&settings.state_dir));
    }
    Some(command)
}

/// Returns a line for each file that was not read and for each key in it.
pub fn text(report: &ImportReport, way_out: Option<&str>) -> String {
    let mut text = String::new();
    for file in &report.unread {
        let name = printable(&file.file.to_string_lossy());
        let _ = writeln!(text, "not read  \"{name}\"  {}", printable(&file.reason));
        for key in &file.keys {
            let keygrip = key.keygrip.as_ref().map_or("", |keygrip| keygrip.as_str());
            let fingerprint = key.fingerprint.as_ref().map(|fingerprint| fingerprint.as_str());
            let name = fingerprint.map_or(format!("{keygrip}.key"), Into::into);
            let user_id = key.user_id.as_deref().map_or_else(String::new, printable);
            let _ = writeln!(text, "    {}", format!("{name}  {user_id}").trim_end());
        }
    }
    if let Some(command) = way_out {
        let _ = writeln!(text, "to import from a copy that has it in a form that is read, run:");
        let _ = writeln!(text, "    {command}");
    }
    text
}

/// Returns a line for each phrase that has no key of exactly its name.
pub fn keyless_text(report: &ImportReport) -> String {
    let mut text = String::new();
    for phrase in &report.keyless {
        let _ = match &phrase.signed_by {
            Some(key) => writeln!(
                text,
                "note  {}  has a phrase and no key of exactly this name: obs-signd signed for it with the \
                 key of {key}  until now; the next request for it makes a key of its own, and packages \
                 signed before verify with the old one",
                phrase.name_email
            ),
            None => writeln!(
                text,
                "note  {}  has a phrase and no key in the keyring: nothing could be signed for it",
                phrase.name_email
            ),
        };
    }
    for name in &report.strange_phrases {
        let name = printable(name);
        let _ = writeln!(text, "note  \"{name}\"  is a phrase, but no identity can have this name");
    }
    text
}
