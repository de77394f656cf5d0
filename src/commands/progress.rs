//! How far a mode has come, on a terminal: on stderr, and nowhere else.

use std::fmt::Display;
use std::io;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::takes_more_than_lines;

/// What is shown while a mode works on many keys.
pub struct Progress(ProgressBar);

impl Progress {
    /// One more key is done.
    pub fn one(&self) {
        self.0.inc(1);
    }

    /// So many of so many keys are done.
    pub fn at(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// Logs a failure above the bar.
    pub fn failed(&self, words: impl Display) {
        self.suspend(|| log::error!("{words}"));
    }

    /// Does what writes to the terminal above the bar.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

/// A bar for so many keys, and in words what is done to them.
pub fn bar(length: usize, what: &'static str) -> ProgressBar {
    let bar = shown("{bar:40} keys {msg}: {pos}/{len}, {eta} left", what);
    bar.set_length(length as u64);
    bar
}

/// Shows a bar while `work` is done on keys, whose number it tells; `what` says in words what is done.
pub fn with_bar<T>(what: &'static str, work: impl FnOnce(&Progress) -> T) -> T {
    show(bar(0, what), work)
}

/// As [`with_bar`], for a number of keys that is not known.
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
