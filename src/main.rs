//! Parse, set up the process and its log, dispatch.

use std::process::ExitCode;

use clap::Parser;
use copr_keygen::cli::{Cli, Command};
use copr_keygen::commands;
use copr_keygen::error::Result;
use copr_keygen::settings::{Flags, Settings};
use copr_keygen::systemd::journal;

fn main() -> ExitCode {
    harden_process();
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::init(log::LevelFilter::Error);
            log::error!("{error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let Command::Serve(serve) = cli.command;
    let flags =
        Flags { config: cli.common.config, state_dir: cli.common.state_dir, listen: serve.listen };
    let settings = Settings::load(flags, std::env::vars_os())?;
    journal::init(settings.log_level);
    for variable in &settings.unknown_variables {
        log::warn!("environment variable {variable} is no setting and was ignored");
    }
    commands::serve::run(settings)
}

/// Whatever this process or a child of it creates is for its owner only, and no core dump of
/// either ever lands on a disk.
fn harden_process() {
    use nix::sys::resource::{Resource, setrlimit};
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        eprintln!("copr-keygen: core dumps could not be turned off: {e}");
    }
}
