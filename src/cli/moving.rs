//! Options of the modes that carry keys in and out, and of those that change how all passphrases are kept.

use std::path::PathBuf;

use clap::Args;
use gpg::clock::Moment;

use super::values::yes_or_no;

#[derive(Args, Debug)]
pub struct Import {
    /// The GnuPG home that holds the keys; only read [default: the old service's, in the state directory]
    #[arg(long, value_name = "GNUPGHOME")]
    pub from: Option<PathBuf>,

    /// The directory of obs-signd's phrase files, for keys that are protected
    #[arg(long, value_name = "DIR", requires = "from")]
    pub phrases: Option<PathBuf>,

    /// Without --from: go on without the keys that cannot be taken over; they stay in trash/ until `purge`
    #[arg(long, conflicts_with = "from")]
    pub leave_out: bool,

    /// Protect each secret key with a fresh passphrase
    #[arg(long, value_name = "YES|NO", default_value = "yes", value_parser = yes_or_no,
          action = clap::ArgAction::Set)]
    pub protect: bool,

    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Export {
    /// A directory that is empty or does not exist; gets gnupg/ and phrases/
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// Shell pattern of names; all keys without it
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<glob::Pattern>,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Backup {
    /// A file that does not exist; a directory, for a file in it that is named after the time; or - for
    /// stdout
    #[arg(long, value_name = "FILE|DIR|-")]
    pub to: PathBuf,

    /// File with an OpenPGP certificate to which the archive is encrypted; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub recipient: Vec<PathBuf>,

    /// Only keys whose home changed then or later: a time, or a span until now like 2d or 12h
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Moment>,

    /// Print a JSON object with what was done; not with --to -
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// A decrypted archive, or - for stdin: gpg --decrypt FILE | copr-keygen restore --from -
    #[arg(long, value_name = "FILE|-")]
    pub from: PathBuf,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Seal {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}
