//! How far a mode has come, on a terminal: on stderr, and nowhere else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many keys, and in words what is done to them.
pub fn bar(length: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length.try_into().unwrap_or(u64::MAX));
    shown(bar, "{bar:40} {pos}/{len} keys {msg}, {eta} left").with_message(what)
}

/// For a number of keys that is not known.
pub fn count(what: &'static str) -> ProgressBar {
    shown(ProgressBar::new_spinner(), "{spinner} {pos} keys {msg}, {per_sec}").with_message(what)
}

fn shown(bar: ProgressBar, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
