//! What both programs share: setting up the process and its log, loading the settings, running a mode, and
//! reporting its result.
//!
//! There are two programs so that most modes start without libcrypto: loading it takes longer than everything
//! else such a mode does before its work. `copr-keygen` has every mode on its command line. Two of them,
//! `signd` and `check`, need libcrypto: for these it executes `copr-keygen-signd`, which is installed in the
//! same directory.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use gpg::text::printable;
use keystore::interrupt;
use log::LevelFilter;

use crate::cli::{Cli, Common};
use crate::commands::gpg as gpg_copr;
use crate::error::{self, Error, Result};
use crate::settings::{Flags, GpgSettings, Settings};
use crate::systemd::journal::{self, Style};

/// The name of the program with every mode but `signd` and `check`.
pub const MAIN: &str = "copr-keygen";
/// The name of the program with the modes that sign in their own process, `signd` and `check`.
const SIGND: &str = "copr-keygen-signd";

/// Parses the command line. If it is wrong or asks for help, prints that and ends the process.
pub fn command_line() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| refuse(&error))
}

/// An argument that must not get to a terminal as it is gets there escaped.
fn refuse(error: &clap::Error) -> ! {
    let is_plain = |argument: OsString| {
        let text = argument.to_string_lossy();
        printable(&text) == text
    };
    if std::env::args_os().all(is_plain) {
        error.exit();
    }
    let text = error.render().to_string();
    for line in text.lines().map(printable) {
        // Nobody is left to be told of a failure.
        let _ = match error.use_stderr() {
            true => writeln!(io::stderr(), "{line}"),
            false => writeln!(io::stdout(), "{line}"),
        };
    }
    std::process::exit(error.exit_code());
}

/// Runs a service: a mode that runs until it is told to stop.
pub fn run_service(flags: Flags, run: fn(Settings) -> Result<()>) -> ExitCode {
    let result = load(flags).and_then(|settings| {
        journal::init(settings.log_level, Style::Service);
        warn_of_unknown_variables(&settings);
        run(settings)
    });
    // The first call of `init` wins, so this one takes effect only if the settings could not be loaded.
    journal::init(LevelFilter::Error, Style::Service);
    end(result)
}

/// Runs a mode that does one thing and exits.
pub fn run_mode(common: Common, run: impl FnOnce(Result<Settings>) -> Result<()>) -> ExitCode {
    let settings = load(flags(common));
    let level = settings.as_ref().map_or(LevelFilter::Error, |settings| settings.log_level);
    journal::init(level, Style::Terminal);
    let _ = settings.as_ref().map(warn_of_unknown_variables);
    end(interrupt::watch().and_then(|()| run(settings)))
}

/// Replaces this process with `copr-keygen-signd`, which takes the same command line. Returns only on failure.
pub fn become_signd(style: Style) -> ExitCode {
    let failure = exec_beside(SIGND);
    journal::init(LevelFilter::Error, style);
    end(failure)
}

/// Runs gpg as `gpg-copr` does. Logs nothing: stdout and stderr belong to gpg, and signd reads both.
pub fn run_gpg(common: Common, arguments: Vec<OsString>) -> ExitCode {
    let settings = GpgSettings::load(flags(common), std::env::vars_os());
    let result = settings.and_then(|settings| gpg_copr::run(&settings, arguments));
    result.unwrap_or_else(|error| {
        // Ignore a failed write: there is nowhere left to report it, and eprintln! would panic.
        let _ = writeln!(io::stderr(), "gpg-copr: {}", printable(&error.to_string()));
        ExitCode::from(error::exit_status(&error))
    })
}

/// Returns the path of another program of this installation, in the directory of the running program.
pub fn beside(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Replaces this process with the program `name` in the same directory. Returns only on failure.
fn exec_beside(name: &str) -> Result<()> {
    let program = beside(name).map_err(|e| Error::io("finding this program", e))?;
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let failure = Command::new(&program).arg0(called).args(arguments).exec();
    Err(Error::io(format!("running {}, which has this mode", program.display()), failure))
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has closed the pipe because it has seen enough, as in `list | head`.
        Err(Error::Gpg(gpg::Error::Io { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
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

fn load(flags: Flags) -> Result<Settings> {
    Settings::load(flags, std::env::vars_os())
}

/// Returns the flags that every mode has.
pub fn flags(common: Common) -> Flags {
    Flags { config: common.config, state_dir: common.state_dir, ..Flags::default() }
}

/// Protects the secrets of this process. Files that it and its children create are accessible to their owner
/// only, and none of them leaves a core dump. Only root may read the memory of this process.
pub fn harden() {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    // Block SIGXFSZ: a write beyond the file size limit then fails with EFBIG, which can be reported, and does
    // not kill the process. Threads inherit the mask; children are started with an empty one.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        let _ = writeln!(io::stderr(), "copr-keygen: core dumps could not be turned off: {e}");
    }
    if let Err(e) = set_dumpable(false) {
        let _ =
            writeln!(io::stderr(), "copr-keygen: its memory could not be closed to others: {e}");
    }
}
