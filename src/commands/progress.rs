//! Progress bars of the modes: on stderr, and only if that is a terminal.

use std::fmt::Display;
use std::io;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::takes_more_than_lines;

/// A progress bar or counter for a mode that works on many keys.
pub struct Progress(ProgressBar);

impl Progress {
    /// Counts one more key as done.
    pub fn one(&self) {
        self.0.inc(1);
    }

    /// Shows that `done` of `total` keys are done.
    pub fn at(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// Logs a failure above the bar.
    pub fn failed(&self, words: impl Display) {
        self.suspend(|| log::error!("{words}"));
    }

    /// Hides the bar while `write` writes to the terminal.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

/// Returns a bar for `length` keys; `what` says what is done to them, like "restored".
pub fn bar(length: usize, what: &'static str) -> ProgressBar {
    let bar = shown("{bar:40} keys {msg}: {pos}/{len}, {eta} left", what);
    bar.set_length(length as u64);
    bar
}

/// Shows a bar during `work`, which tells it the number of keys; `what` says what is done to them.
pub fn with_bar<T>(what: &'static str, work: impl FnOnce(&Progress) -> T) -> T {
    show(bar(0, what), work)
}

/// Shows a counter during `work`, like [`with_bar`], for an unknown number of keys.
pub fn with_count<T>(what: &'static str, work: impl FnOnce(&Progress) -> T) -> T {
    show(shown("{spinner} keys {msg}: {pos}, {per_sec}", what), work)
}

fn shown(template: &str, what: &'static str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) if takes_more_than_lines(&io::stderr()) => {
            ProgressBar::new(0).with_style(style).with_message(what)
        }
        _ => ProgressBar::hidden(),
    }
}

fn show<T>(bar: ProgressBar, work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress(bar);
    let result = work(&progress);
    progress.0.finish_and_clear();
    result
}
