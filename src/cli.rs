//! The command line: what clap parses.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Makes and keeps the OpenPGP signing keys of a build system, one GnuPG home per identity.
#[derive(Debug, Parser)]
#[command(name = "copr-keygen", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,

    /// The mode.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every mode.
#[derive(Args, Debug, Default)]
pub struct Common {
    /// Directory that holds the keys and everything derived from them [default:
    /// /var/lib/copr-keygen]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Configuration file [default: /etc/copr-keygen/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// The modes of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer HTTP requests for keys
    Serve(Serve),

    /// Run gpg on the key that a gpg command line is about; the `gpg:` program of obs-signd. Called
    /// as gpg-copr, all arguments are gpg's
    Gpg(Gpg),
}

/// Options of `serve`.
#[derive(Args, Debug, Default)]
pub struct Serve {
    /// Where to listen when systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated
    /// [default: 127.0.0.1:5003]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
}

/// Options of `gpg`.
#[derive(Args, Debug, Default)]
pub struct Gpg {
    /// The arguments of gpg
    #[arg(last = true, value_name = "ARG")]
    pub arguments: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
