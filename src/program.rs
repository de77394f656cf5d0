//! What both programs do: set up the process and its log, load the settings, run a mode, tell how it ended.
//!
//! There are two so that most modes start without libcrypto: loading it takes longer than all else that such a mode
//! does before its work. `copr-keygen` has every mode on its command line and runs the two that need it, `signd` and
//! `check`, by becoming `copr-keygen-signd`, which lies beside it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use gpg::text::printable;
use keystore::interrupt;
use log::LevelFilter;

use crate::cli::Common;
use crate::commands::gpg as gpg_copr;
use crate::error::{self, Error, Result};
use crate::settings::{Flags, GpgSettings, Settings};
use crate::systemd::journal::{self, Style};

/// The program with every mode but those.
pub const MAIN: &str = "copr-keygen";
/// The program with the modes that sign by themselves.
const SIGND: &str = "copr-keygen-signd";

/// Runs a mode that runs until it is told to stop.
pub fn run_service(flags: Flags, run: fn(Settings) -> Result<()>) -> ExitCode {
    let result = load(flags).and_then(|settings| {
        journal::init(settings.log_level, Style::Service);
        warn_of_unknown_variables(&settings);
        run(settings)
    });
    // Counts only when the settings could not even be loaded.
    journal::init(LevelFilter::Error, Style::Service);
    end(result)
}

/// Runs a mode that does one thing and ends.
pub fn run_mode(common: Common, run: impl FnOnce(Result<Settings>) -> Result<()>) -> ExitCode {
    let settings = load(flags(common));
    let level = settings.as_ref().map_or(LevelFilter::Error, |settings| settings.log_level);
    journal::init(level, Style::Terminal);
    let _ = settings.as_ref().map(warn_of_unknown_variables);
    end(interrupt::watch().and_then(|()| run(settings)))
}

/// Becomes `copr-keygen-signd`, which has the same command line.
pub fn become_signd(style: Style) -> ExitCode {
    let failure = exec_beside(SIGND);
    journal::init(LevelFilter::Error, style);
    end(failure)
}

/// Runs gpg as `gpg-copr` does. Logs nothing: stdout and stderr are gpg's, and signd reads both.
pub fn run_gpg(common: Common, arguments: Vec<OsString>) -> ExitCode {
    let settings = GpgSettings::load(flags(common), std::env::vars_os());
    let result = settings.and_then(|settings| gpg_copr::run(&settings, arguments));
    result.unwrap_or_else(|error| {
        // Nobody is left to tell when stderr is full, and eprintln! would end in a panic.
        let _ = writeln!(io::stderr(), "gpg-copr: {}", printable(&error.to_string()));
        ExitCode::from(error::exit_status(&error))
    })
}

/// Where a program of this installation is: beside the one that runs.
pub fn beside(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Returns only what kept this process from becoming the program beside its own.
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
        // The reader of our output has seen enough, as in `list | head`.
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

/// The flags that every mode has.
pub fn flags(common: Common) -> Flags {
    Flags { config: common.config, state_dir: common.state_dir, ..Flags::default() }
}

/// Files of this process and its children are for their owner only, and no core dump of either lands on a disk.
/// Only root may look into the memory of this process.
pub fn harden() {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    // A file that would grow beyond the limit is an error in words (EFBIG), and no death without any.
    // Threads inherit this; children are started with an empty mask.
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
