//! Writes the manual pages and shell completions from the definitions that parse the command line
//! and the settings. `make man` runs it; a test compares what is there with what it would write.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use copr_keygen::cli::Cli;
use copr_keygen::settings::{CONFIG_FILE, SETTINGS};

/// The part of copr-keygen(1) that people write.
const PROSE: &str = include_str!("../man/copr-keygen.1.in");

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in files()? {
        std::fs::write(root.join(path), text)?;
    }
    Ok(())
}

/// Every generated file: its path in the tree, and its text.
pub fn files() -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut command = Cli::command();
    command.build();
    files.insert("man/copr-keygen.1".into(), main_page(&command)?);
    for mode in command.get_subcommands().filter(|mode| mode.get_name() != "help") {
        let name = format!("copr-keygen-{}", mode.get_name());
        let mut page = Vec::new();
        Man::new(mode.clone().disable_version_flag(true)).render(&mut page)?;
        see_also().to_writer(&mut page)?;
        files.insert(format!("man/{name}.1"), page);
    }
    files.insert("man/copr-keygen.toml.5".into(), settings_page()?);
    for (shell, path) in [
        (Shell::Bash, "completions/copr-keygen.bash"),
        (Shell::Zsh, "completions/_copr-keygen"),
        (Shell::Fish, "completions/copr-keygen.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "copr-keygen", &mut script);
        files.insert(path.into(), script);
    }
    Ok(files)
}

fn main_page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let (description, rest) = PROSE.split_once(".SH EXAMPLES").ok_or(io::ErrorKind::InvalidData)?;
    page.extend_from_slice(description.as_bytes());
    man.render_subcommands_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH EXAMPLES");
    page.extend_from_slice(rest.as_bytes());
    Ok(page)
}

fn see_also() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("copr-keygen"), roman("(1), "), bold("copr-keygen.toml"), roman("(5)")]);
    roff
}

fn settings_page() -> io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    roff.control("TH", ["copr-keygen.toml", "5", "", "copr-keygen", ""]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("copr-keygen.toml - settings of copr-keygen")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic(CONFIG_FILE)]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A TOML file with one key for each setting. It need not exist. An unknown key is an error with \
         exit status 78 for every mode but gpg. A wrong value is an error with exit status 78 for the \
         modes that need the setting; the others warn. The environment variable \
         COPR_KEYGEN_ and the name in capitals comes before the file; --state-dir, --config and \
         serve's --listen come before both. copr-keygen check shows what is in effect and where it \
         comes from.",
    )]);
    roff.control("SH", ["SETTINGS"]);
    for setting in SETTINGS {
        roff.control("TP", []);
        let default = match setting.default {
            "" => "none".into(),
            text if text.bytes().all(|b| b.is_ascii_digit()) => text.to_owned(),
            text => format!("\"{text}\""),
        };
        roff.text([bold(setting.name), roman(format!(" (default: {default})"))]);
        roff.text([roman(setting.about)]);
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.control("EX", []);
    for line in ["key_length = 4096", "expire = \"5y\"", "jobs = 4"] {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("copr-keygen"), roman("(1)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(page)
}
