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
/// The part of gpg-copr(1) that people write.
const GPG_COPR: &str = include_str!("../man/gpg-copr.1.in");
/// Adds the names of keys to the completion of bash.
const BASH_NAMES: &str = include_str!("names.bash");

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
    files.insert("man/gpg-copr.1".into(), gpg_copr_page()?);
    files.insert("man/copr-keygen.toml.5".into(), settings_page()?);
    for (shell, path) in [
        (Shell::Bash, "completions/copr-keygen.bash"),
        (Shell::Zsh, "completions/_copr-keygen"),
        (Shell::Fish, "completions/copr-keygen.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "copr-keygen", &mut script);
        if shell == Shell::Bash {
            script = bash(&command, String::from_utf8_lossy(&script).into_owned()).into_bytes();
        }
        files.insert(path.into(), script);
    }
    Ok(files)
}

/// Mends the completion of bash. The generator writes the hyphen of the program's name in two ways, so no mode
/// is found. It knows no names of keys either: they are offered to modes that take the name of a key.
fn bash(command: &clap::Command, script: String) -> String {
    let mut script = script.replace("copr__subcmd__keygen", "copr__keygen");
    for mode in command.get_subcommands().filter(|mode| takes_names(mode)) {
        let case = format!("        copr__keygen__subcmd__{})\n", mode.get_name());
        let valued = mode.get_opts().filter(|option| option.get_action().takes_values());
        let valued: Vec<_> = valued.filter_map(|option| option.get_long()).collect();
        let names = format!(
            "            [[ $3 != @(=|--@({})) ]] && _copr_keygen_names \"$@\" && return 0\n",
            valued.join("|")
        );
        script = script.replace(&case, &format!("{case}{names}"));
    }
    format!("{BASH_NAMES}\n{script}")
}

/// Whether a mode is about keys that are there. The name that `make` takes is a new one, and what `undo` brings
/// back is not in the list.
fn takes_names(mode: &clap::Command) -> bool {
    let is_name = |argument: &clap::Arg| {
        matches!(argument.get_id().as_str(), "names" | "name_email" | "pattern")
            && argument.is_positional()
    };
    !matches!(mode.get_name(), "make" | "undo") && mode.get_arguments().any(is_name)
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

fn gpg_copr_page() -> io::Result<Vec<u8>> {
    let about = "gpg for the keys of copr-keygen; the gpg program of obs-signd";
    let named = clap::Command::new("gpg-copr").about(about).version(env!("CARGO_PKG_VERSION"));
    let man = Man::new(named);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend_from_slice(GPG_COPR.as_bytes());
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
        "A TOML file with one key for each setting. It need not exist. A setting with a dot in its name, like \
         signd.jobs, is the key jobs below the line [signd]; such lines stand behind all other settings. An \
         unknown key is an error with exit status 78 for every mode but gpg. A wrong value is an error with \
         exit status 78 for the modes that need the setting; the others warn. The environment variable \
         COPR_KEYGEN_ and the name in capitals, with _ for a dot, comes before the file; --state-dir, \
         --config and serve's --listen come before both. copr-keygen check shows what was set and where; \
         the rest has its default.",
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
    let allow = "allow = [\"127.0.0.1 *\", \"192.0.2.0/24 user#*@* @group#*\", \"unix:copr *\"]";
    for line in ["key_length = 4096", "expire = \"5y\"", "jobs = 4", "", "[signd]", allow] {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("copr-keygen"), roman("(1)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(page)
}
