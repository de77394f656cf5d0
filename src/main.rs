//! Parse, set up the process and its log, dispatch.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use copr_keygen::cli::{Cli, Command, Common, Serve, Signd};
use copr_keygen::commands::{self, gpg as gpg_copr, serve, signd};
use copr_keygen::error::{self, Error, Result};
use copr_keygen::settings::{Flags, GpgSettings, Settings};
use copr_keygen::systemd::journal;
use gpg::text::printable;
use keystore::interrupt;

fn main() -> ExitCode {
    harden_process();
    if let Some(arguments) = arguments_of_gpg() {
        return run_gpg(Common::default(), arguments);
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(Serve { listen }) => {
            run_service(Flags { listen, ..flags(cli.common) }, serve::run)
        }
        Command::Signd(Signd { listen }) => {
            run_service(Flags { signd_listen: listen, ..flags(cli.common) }, signd::run)
        }
        Command::Gpg(options) => run_gpg(cli.common, options.arguments),
        command => run_mode(cli.common, command),
    }
}

/// A mode that runs until it is told to stop.
fn run_service(flags: Flags, run: fn(Settings) -> Result<()>) -> ExitCode {
    let result = load(flags).and_then(|settings| {
        journal::init(settings.log_level, journal::Style::Service);
        warn_of_unknown_variables(&settings);
        run(settings)
    });
    // Counts only when the settings could not even be loaded.
    journal::init(log::LevelFilter::Error, journal::Style::Service);
    end(result)
}

/// Every mode that does one thing and ends.
fn run_mode(common: Common, command: Command) -> ExitCode {
    let settings = load(flags(common));
    let level = settings.as_ref().map_or(log::LevelFilter::Error, |settings| settings.log_level);
    journal::init(level, journal::Style::Terminal);
    let _ = settings.as_ref().map(warn_of_unknown_variables);
    end(interrupt::watch().and_then(|()| commands::run(settings, command)))
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as in `list | head`.
        Err(Error::Gpg(gpg::Error::Io { source, .. }))
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            journal::last_words(&error);
            ExitCode::from(error::exit_status(&error))
        }
    }
}

fn warn_of_unknown_variables(settings: &Settings) {
    for variable in &settings.unknown_variables {
        log::warn!("environment variable {variable} is no setting and was ignored");
    }
}

/// Logs nothing: stdout and stderr are gpg's, and signd reads both.
fn run_gpg(common: Common, arguments: Vec<OsString>) -> ExitCode {
    let settings = GpgSettings::load(flags(common), std::env::vars_os());
    let result = settings.and_then(|settings| gpg_copr::run(&settings, arguments));
    result.unwrap_or_else(|error| {
        // Nobody is left to tell when stderr is full, and eprintln! would end in a panic.
        let _ = writeln!(std::io::stderr(), "gpg-copr: {}", printable(&error.to_string()));
        ExitCode::from(error::exit_status(&error))
    })
}

/// The arguments, when the binary was called by one of the names under which it stands in for gpg.
fn arguments_of_gpg() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os();
    let program = PathBuf::from(arguments.next()?);
    let name = program.file_name()?.to_str()?;
    gpg_copr::CALLED_AS.contains(&name).then(|| arguments.collect())
}

fn load(flags: Flags) -> Result<Settings> {
    Settings::load(flags, std::env::vars_os())
}

fn flags(common: Common) -> Flags {
    Flags { config: common.config, state_dir: common.state_dir, ..Flags::default() }
}

/// Files of this process and its children are for their owner only, and no core dump of either lands on a disk.
/// Only root may look into the memory of this process.
fn harden_process() {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    // A file that would grow beyond the limit is an error in words (EFBIG), and no death without any.
    // Threads inherit this; children are started with an empty mask.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        let _ = writeln!(std::io::stderr(), "copr-keygen: core dumps could not be turned off: {e}");
    }
    if let Err(e) = set_dumpable(false) {
        let _ = writeln!(
            std::io::stderr(),
            "copr-keygen: its memory could not be closed to others: {e}"
        );
    }
}
