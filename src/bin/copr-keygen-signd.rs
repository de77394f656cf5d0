//! The program `copr-keygen-signd`: the modes that sign in their own process, linked with libcrypto.
//! `copr-keygen` executes it for these modes, so both take the same command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use copr_keygen::cli::{Cli, Command, Signd};
use copr_keygen::commands::{check, signd};
use copr_keygen::program;
use copr_keygen::settings::Flags;

const OTHERS: &str = "this program has the modes signd and check only; copr-keygen has the others and runs this one for \
                      these two";

fn main() -> ExitCode {
    program::harden();
    let cli = program::command_line();
    match cli.command {
        Command::Signd(Signd { listen }) => program::run_service(
            Flags { signd_listen: listen, ..program::flags(cli.common) },
            signd::run,
        ),
        Command::Check(options) => {
            program::run_mode(cli.common, |settings| check::run(settings, &options))
        }
        _ => Cli::command().error(ErrorKind::InvalidSubcommand, OTHERS).exit(),
    }
}
