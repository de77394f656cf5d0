//! The program `copr-keygen`: parses the command line and dispatches to a mode. The module `program` does the
//! rest, and explains why there is a second program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use copr_keygen::cli::{Cli, Command, Common, Serve};
use copr_keygen::commands::gpg::CALLED_AS;
use copr_keygen::commands::{self, serve};
use copr_keygen::program;
use copr_keygen::settings::Flags;
use copr_keygen::systemd::journal::Style;
use gpg::text::printable;

fn main() -> ExitCode {
    program::harden();
    if let Some(arguments) = arguments_of_gpg() {
        return program::run_gpg(Common::default(), arguments);
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    match cli.command {
        Command::Serve(Serve { listen }) => {
            program::run_service(Flags { listen, ..program::flags(cli.common) }, serve::run)
        }
        Command::Gpg(options) => program::run_gpg(cli.common, options.arguments),
        Command::Signd(_) => program::become_signd(Style::Service),
        Command::Check(_) => program::become_signd(Style::Terminal),
        command => program::run_mode(cli.common, |settings| commands::run(settings, command)),
    }
}

/// Prints what is wrong with the command line, or the help, and ends the process. An argument that must not get to
/// a terminal as it is gets there escaped.
fn refuse(error: &clap::Error) -> ! {
    let is_plain = |argument: OsString| {
        let text = argument.to_string_lossy();
        printable(&text) == text
    };
    if std::env::args_os().all(is_plain) {
        error.exit();
    }
    for line in error.render().to_string().lines() {
        eprintln!("{}", printable(line));
    }
    std::process::exit(error.exit_code());
}

/// Returns the arguments if the binary was called by one of the names in [`CALLED_AS`], under which it stands
/// in for gpg.
fn arguments_of_gpg() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os();
    let program = PathBuf::from(arguments.next()?);
    let name = program.file_name()?.to_str()?;
    CALLED_AS.contains(&name).then(|| arguments.collect())
}
