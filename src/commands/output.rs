//! Output of the modes on stdout: JSON for programs, tables and sentences for people.

use std::io::{self, IsTerminal, Write};

pub use gpg::text::{keys, number};
use keystore::NameEmail;
use serde::Serialize;
use serde_json::{Value, json};
use terminal_size::{Width, terminal_size_of};

use crate::error::{Error, Result};

/// Whether to write for people: stdout is a terminal and `--json` was not given.
pub fn is_for_people(json: bool) -> bool {
    !json && io::stdout().is_terminal()
}

/// Whether `stream` is a terminal that takes colours and progress bars. A non-empty NO_COLOR
/// (<https://no-color.org>), `TERM=dumb` or no TERM at all asks for plain lines.
pub fn takes_more_than_lines(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    stream.is_terminal() && !is_unwanted && !is_dumb
}

/// Prints the result of a mode: `object` if JSON was asked for, otherwise `text`.
pub fn report(json_is_asked: bool, object: &impl Serialize, text: &str) -> Result<()> {
    if json_is_asked { json(object) } else { print(text) }
}

/// Prints one JSON value and a line feed.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(json_failed)?;
    text.push('\n');
    print(&text)
}

/// Returns `object` as a JSON value, to which the caller can add fields.
pub fn value(object: &impl Serialize) -> Result<Value> {
    serde_json::to_value(object).map_err(json_failed)
}

/// Returns the JSON entry for a key that failed: its name and the error.
pub fn failure(name_email: &NameEmail, error: &Error) -> Value {
    json!({"name_email": name_email.as_str(), "error": error.to_string()})
}

/// Prints `text` unchanged and flushes stdout.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints a JSON array with one element per line, without holding the whole array in memory.
pub fn json_array<T: Serialize>(values: impl Iterator<Item = T>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut between = "[\n";
    for value in values {
        let text = serde_json::to_string(&value).map_err(json_failed)?;
        write!(out, "{between}{text}").map_err(stdout_failed)?;
        between = ",\n";
    }
    let end = if between == "[\n" { "[]\n" } else { "\n]\n" };
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints rows in columns, fitted to the width of the terminal. Drops columns that do not fit, the last one
/// first, but keeps at least `least` columns. A first cell that is still too long gets a line of its own.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], least: usize) -> Result<()> {
    let room = terminal_size_of(io::stdout()).map_or(80, |(Width(width), _)| width.into());
    print(&columns(head, rows, least, room))
}

fn columns<const N: usize>(
    head: [&str; N],
    rows: &[[String; N]],
    least: usize,
    room: usize,
) -> String {
    let width = |text: &str| text.chars().count();
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let mut widths: Vec<_> =
        (0..N).map(|column| all().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    let needed = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    while widths.len() > least && needed(&widths) > room {
        widths.pop();
    }
    widths[0] = widths[0].saturating_sub(needed(&widths).saturating_sub(room)).max(width(&head[0]));
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (column, (cell, wide)) in row.iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if column == 0 && width(cell) > *wide {
                line.push_str(&format!("\n{:wide$}", ""));
            }
            line.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell)) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn json_failed(e: serde_json::Error) -> Error {
    Error::io("writing JSON", io::Error::other(e))
}

fn stdout_failed(e: io::Error) -> Error {
    Error::io("writing to stdout", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_it_has_room_for() {
        let rows = [["a", "2030-01-01", "x"], ["a-long-name", "never", "y"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let fitted = |room| columns(["NAME", "EXPIRES", "OTHER"], &rows, 2, room);
        let all = "NAME         EXPIRES     OTHER\na            2030-01-01  x\na-long-name  never       y\n";
        assert_eq!(fitted(30), all);
        let two = "NAME         EXPIRES\na            2030-01-01\na-long-name  never\n";
        assert_eq!(fitted(29), two);
        let broken = "NAME  EXPIRES\na     2030-01-01\na-long-name\n      never\n";
        assert_eq!(fitted(16), broken);
        assert_eq!(fitted(5), broken);
    }
}
