//! What modes print on stdout: JSON for programs, tables for people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::error::{Error, Result};

/// Whether people read stdout and have not asked for JSON.
pub fn is_for_people(json: bool) -> bool {
    !json && io::stdout().is_terminal()
}

/// Prints one JSON value and a line break.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::io("writing JSON", io::Error::other(e)))?;
    text.push('\n');
    print(&text)
}

/// Prints `text` as it is.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints a JSON array, one element a line, without ever holding it whole.
pub fn json_array<T: Serialize>(values: impl Iterator<Item = T>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut between = "[\n";
    for value in values {
        let text = serde_json::to_string(&value)
            .map_err(|e| Error::io("writing JSON", io::Error::other(e)))?;
        write!(out, "{between}{text}").map_err(stdout_failed)?;
        between = ",\n";
    }
    let end = if between == "[\n" { "[]\n" } else { "\n]\n" };
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints rows in columns that are as wide as they need to be.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let width = |text: &str| text.chars().count();
    let mut widths = head.map(width);
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(cell));
        }
    }
    let mut text = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                text.extend(std::iter::repeat_n(' ', widths[column] - width(cell) + 2));
            }
        }
        text.push('\n');
    }
    print(&text)
}

fn stdout_failed(e: io::Error) -> Error {
    Error::io("writing to stdout", e)
}

/// `1 key`, `2 keys`.
pub fn number(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
