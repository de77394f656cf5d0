//! The command line: what clap parses.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gpg::Lifetime;
use gpg::clock::Moment;
use keystore::NameEmail;

use crate::http::tokens::{self, Scopes};

/// Makes and keeps the OpenPGP signing keys of a build system, one GnuPG home per identity.
#[derive(Debug, Parser)]
#[command(name = "copr-keygen", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
When something is wrong:  copr-keygen check
All keys, one key:        copr-keygen list; copr-keygen show 'user#project@copr.example.org'
Manual:                   man copr-keygen, man copr-keygen-prolong, man copr-keygen.toml")]
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
    ///
    /// On sockets passed by systemd it exits when it has been idle for a while, and the next connection
    /// starts it again. Signals let it finish the requests at work.
    Serve(Serve),

    /// Run gpg on the key that a gpg command line is about; the `gpg:` program of obs-signd. Called
    /// as gpg-copr, all arguments are gpg's
    Gpg(Gpg),

    /// Say whether this sign host is well, and what to do about what is not
    ///
    /// Goes through settings, gpg, directories, homes, the links of obs-signd, the agent that signs,
    /// obs-signd itself, units and expiring keys, in the order in which one thing needs the other. Makes one
    /// signature with the newest key, by the agent that signs here. Each line that is not well says what to do,
    /// with a command that works as it stands or in words. Changes nothing unless told to with --repair. The
    /// exit status is 0 when no line failed.
    ///
    /// As root it looks at the system as well, and can give files back to their owner.
    Check(Check),

    /// List keys: a table on a terminal, else a JSON array
    List(List),

    /// Show one key, with its certificate as gpg sees it
    ///
    /// Asks gpg for the certificate: user IDs, expiry, every self-signature.
    Show(Show),

    /// Print the armored certificate of a key, with all its self-signatures
    ///
    /// This is what is to be published. The self-signatures from before a prolongation are part of it:
    /// without them, packages signed earlier stop verifying for those who judge a signature by the time it
    /// was made.
    Pubkey(Pubkey),

    /// Give keys that expire soon a later expiry
    ///
    /// Keys without an expiry are left alone, and those that have expired unless --expired is given. Every
    /// earlier self-signature stays in the certificate. A new certificate is made aside and checked; one
    /// that is not as it must be is thrown away and the old one stays. It may run beside everything else,
    /// and be interrupted: the next run goes on. A key that fails does not stop the others, but makes the
    /// exit status 1.
    ///
    /// Certificates that have changed must be published: list --changed-since names them, and the setting
    /// `hook` names a program that is told.
    Prolong(Prolong),

    /// Make secret keys in advance, so that requests need not wait for them
    ///
    /// As many as the setting `pool` says. Without systemd, serve does it itself.
    FillPool,

    /// Take over the keys of a GnuPG home that many keys share, like the one of the old service
    ///
    /// Without --from, the keys of the old service in the state directory itself. It signs meanwhile. Each key
    /// is proved by a signature before the new directories take the place of the old ones, which are kept in
    /// trash/ until `purge`. Prints what is left to do on this host.
    ///
    /// With --from, that home is only read. What cannot be taken over is listed with the reason, never
    /// dropped. It may be interrupted and run again.
    Import(Import),

    /// Write all keys into one ordinary GnuPG home with phrases, as the old service had it
    ///
    /// For plain gpg, the old service, or another one: nobody is locked in. At the end a signature is made
    /// with every key, found by its name and opened with its phrase, as the old service had it. A key that
    /// cannot be exported, or does not sign there, is named; the others are there all the same, and the
    /// exit status is 1.
    Export(Export),

    /// Write an encrypted archive of the keys, while everything goes on
    ///
    /// The archive holds secret keys with their passphrases. It is encrypted to the given certificates by
    /// gpg on its way to the file.
    Backup(Backup),

    /// Put the keys of a decrypted archive back
    ///
    /// Each key is checked, with a signature, before it is published. Keys that are there already stay; a
    /// certificate that is newer in the archive takes the place of the older one.
    Restore(Restore),

    /// Print a new token that lets a client in, as a line for the file of tokens
    ///
    /// The line goes into the credential of the service, /etc/credstore/copr-keygen.tokens, or into the
    /// file that the setting tokens_file names. The client sends the second word.
    Token(Token),

    /// Take a key out of use; `undo` brings it back until `purge`
    ///
    /// Its home is moved to trash/, beside a revoked certificate that you may publish; nothing is published
    /// by itself. The next request for the same identity makes another key.
    Remove(Remove),

    /// Bring a removed key back
    Undo(Undo),

    /// Destroy removed keys, and what is kept of the old service, for good
    ///
    /// Nothing brings them back, except a backup.
    Purge(Purge),

    /// Encrypt all passphrases under the key in the credential passphrase-key
    ///
    /// From then on a stolen disk or backup alone signs nothing, and a process without the credential makes
    /// and prolongs no key. Converts in place while everything goes on; it may be interrupted and run
    /// again. signd then reads passphrases from the setting `phrases_dir`. See docs/sealing.md first: who
    /// loses the credential loses the keys.
    Seal(Seal),

    /// Take `seal` back: passphrases are in the clear again
    Unseal(Seal),

    /// Give signd the passphrase of every key, and take away those of no key
    ///
    /// Into the setting `phrases_dir`, which is empty after a boot; without it, as links in phrases/.
    Phrases(Phrases),
}

/// Options of `seal` and `unseal`.
#[derive(Args, Debug)]
pub struct Seal {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print a JSON object with what was done
    #[arg(long)]
    pub json: bool,
}

/// Options of `phrases`.
#[derive(Args, Debug)]
pub struct Phrases {}

/// Options of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Mend what can be mended: owners and modes, links of obs-signd, gpg-agent.conf, key.json
    #[arg(long)]
    pub repair: bool,

    /// Have gpg look at every certificate and make a signature with every key, on all cores
    #[arg(long)]
    pub deep: bool,

    /// Print only what is wrong: nothing when all is well
    #[arg(long)]
    pub quiet: bool,

    /// Print a JSON array, one object a finding
    #[arg(long)]
    pub json: bool,

    /// The configuration of obs-signd [default: /etc/sign.conf]
    #[arg(long, value_name = "FILE")]
    pub sign_conf: Option<PathBuf>,

    /// Leave systemd out, on a host that starts copr-keygen and obs-signd in another way
    #[arg(long)]
    pub no_units: bool,
}

/// Options of `list`.
#[derive(Args, Debug, Default)]
pub struct List {
    /// Shell pattern of names, like 'user#*@copr.example.org'; quote it
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<glob::Pattern>,

    /// Only keys that expire before then or have expired: a date, a time, @ and a Unix time, or a
    /// span from now like 90d
    #[arg(long, value_name = "WHEN")]
    pub expires_before: Option<Moment>,

    /// Only keys whose certificate changed then or later: a date, a time, @ and a Unix time, or a
    /// span until now like 2d
    #[arg(long, value_name = "WHEN")]
    pub changed_since: Option<Moment>,

    /// Print JSON on a terminal too
    #[arg(long)]
    pub json: bool,
}

/// Options of `show`.
#[derive(Args, Debug)]
pub struct Show {
    /// Whose key
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// Print JSON on a terminal too
    #[arg(long)]
    pub json: bool,
}

/// Options of `pubkey`.
#[derive(Args, Debug)]
pub struct Pubkey {
    /// Whose key
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// Print a JSON object that holds the certificate
    #[arg(long)]
    pub json: bool,
}

/// Options of `prolong`.
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

/// Options of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// The GnuPG home the keys are in; only read [default: the old service's, in the state directory]
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

/// Options of `export`.
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

/// Options of `backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// A file that does not exist, or - for stdout
    #[arg(long, value_name = "FILE|-")]
    pub to: PathBuf,

    /// File with the OpenPGP certificate the archive is encrypted to; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub recipient: Vec<PathBuf>,

    /// Only keys whose home changed then or later (see list --changed-since)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Moment>,
}

/// Options of `restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// A decrypted archive, or - for stdin: gpg --decrypt FILE | copr-keygen restore --from -
    #[arg(long, value_name = "FILE|-")]
    pub from: PathBuf,
}

/// Options of `token`.
#[derive(Args, Debug)]
pub struct Token {
    /// What the log calls it: letters, digits, '.', '_' and '-'
    #[arg(value_parser = tokens::parse_name)]
    pub name: String,

    /// What it is good for: generate (POST /gen_key), read (GET /keys and /metrics), or both
    #[arg(long, value_name = "SCOPES", default_value = "generate,read")]
    pub scopes: Scopes,

    /// Shell pattern of the identities it is good for, like '*#*@copr.example.org'; all without it
    #[arg(long, value_name = "PATTERN", value_parser = tokens::parse_pattern)]
    pub pattern: Option<glob::Pattern>,
}

/// Options of `remove`.
#[derive(Args, Debug)]
pub struct Remove {
    /// Whose key
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Options of `undo`.
#[derive(Args, Debug)]
pub struct Undo {
    /// Whose key; of several that were removed, the last
    #[arg(value_name = "NAME_EMAIL", value_parser = name_email)]
    pub name_email: NameEmail,
}

/// Options of `purge`.
#[derive(Args, Debug)]
pub struct Purge {
    /// Only what came to the trash longer ago than this; 0d for all
    #[arg(long, value_name = "SPAN")]
    pub older_than: Lifetime,

    /// Only the directories of the old service that `import` has put there
    #[arg(long)]
    pub old_service: bool,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

fn name_email(text: &str) -> Result<NameEmail, String> {
    NameEmail::parse(text).map_err(|e| e.to_string())
}

/// A span of time that is longer than nothing.
fn span(text: &str) -> Result<Lifetime, String> {
    match text.parse()? {
        Lifetime::FOREVER => Err("must be longer than nothing".into()),
        lifetime => Ok(lifetime),
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("must be yes or no".into()),
    }
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
