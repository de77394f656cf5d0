//! Options of the modes that look at keys, make them, prolong them and take them out of use.

use clap::{Args, ValueEnum};
use gpg::clock::Moment;
use gpg::{KeyLength, Lifetime};
use keystore::NameEmail;

use super::values::{name_email, span};

#[derive(Args, Debug)]
pub struct Make {
    /// The unique name of the key, like 'user#project@copr.example.org'; quote it
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// The name in the user ID
    #[arg(long, value_name = "NAME")]
    pub real: String,

    /// The comment in the user ID
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,

    /// 2048, 3072 or 4096 [default: the setting key_length]
    #[arg(long, value_name = "BITS")]
    pub length: Option<KeyLength>,

    /// Days after which the key expires, or a span like 5y; 0 is never [default: the setting expire]
    #[arg(long, value_name = "DAYS")]
    pub expire: Option<Lifetime>,

    /// Print a JSON object with the key
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct List {
    /// Shell pattern of names, like 'user#*@copr.example.org'; quote it
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<glob::Pattern>,

    /// Only keys that expire before then or have expired: a date, a time, @ and a Unix time, or a
    /// span from now like 90d
    #[arg(long, value_name = "WHEN")]
    pub expires_before: Option<Moment>,

    /// Only keys whose certificate changed then or later: a date, a time, @ and a Unix time, or a
    /// span until now like 2d or 12h
    #[arg(long, value_name = "WHEN")]
    pub changed_since: Option<Moment>,

    /// Order of the keys; the first to expire, the oldest and the longest unchanged come first
    #[arg(long, value_name = "ORDER", default_value = "name")]
    pub sort: Order,

    /// Print names only, one a line
    #[arg(long, conflicts_with = "json")]
    pub names: bool,

    /// Print JSON on a terminal too
    #[arg(long)]
    pub json: bool,
}

/// Orders of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By name.
    Name,
    /// By expiry; keys that never expire come last.
    Expires,
    /// By the time the key was made.
    Created,
    /// By the time the certificate became what it is.
    Changed,
}

#[derive(Args, Debug)]
pub struct Show {
    /// The names of the keys
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email, required = true)]
    pub names: Vec<NameEmail>,

    /// Print JSON on a terminal too
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Pubkey {
    /// The name of the key
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// Print a JSON object that holds the certificate
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Prolong {
    /// Keys that expire within this time are prolonged
    #[arg(long, value_name = "SPAN", default_value = "365d", value_parser = span)]
    pub within: Lifetime,

    /// The new expiry, counted from now
    #[arg(long, value_name = "SPAN", default_value = "5y", value_parser = span)]
    pub by: Lifetime,

    /// Prolong keys that have expired already, too
    #[arg(long)]
    pub expired: bool,

    /// Believe a clock that is behind a key, or years after the last sign of life in the state
    #[arg(long)]
    pub trust_clock: bool,

    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// The names of the keys
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email, required = true)]
    pub names: Vec<NameEmail>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Undo {
    /// The name of the key; of several keys with this name, the one that was removed last
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Purge {
    /// Only what came to the trash longer ago than this, like 30d or 12h; 0d for all
    #[arg(long, value_name = "SPAN", value_parser = Lifetime::parse_span)]
    pub older_than: Lifetime,

    /// Only the directories of the old service that `import` has put there
    #[arg(long)]
    pub old_service: bool,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}
