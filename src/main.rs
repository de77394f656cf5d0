//! The program `copr-keygen`: parses the command line and dispatches to a mode. The module `program` does the
//! rest, and explains why there is a second program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use copr_keygen::cli::{Command, Common, Serve};
use copr_keygen::commands::gpg::CALLED_AS;
use copr_keygen::commands::{self, serve};
use copr_keygen::program;
use copr_keygen::settings::Flags;
use copr_keygen::systemd::journal::Style;

fn main() -> ExitCode {
    program::harden();
    if let Some(arguments) = arguments_of_gpg() {
        return program::run_gpg(Common::default(), arguments);
    }
    let cli = program::command_line();
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

/// Returns the arguments if the binary was called by one of the names in [`CALLED_AS`], under which it stands
/// in for gpg.
fn arguments_of_gpg() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os();
    let program = PathBuf::from(arguments.next()?);
    let name = program.file_name()?.to_str()?;
    CALLED_AS.contains(&name).then(|| arguments.collect())
}
