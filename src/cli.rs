//! The command line: what clap parses. The options of modes about keys are in `keys`, those of modes that
//! carry all keys from one place to another in `moving`.

// A doc comment at the options of a mode would take the place of the help text of the mode.
#![allow(missing_docs)]

mod keys;
mod moving;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::http::tokens::{self, Scopes};
use crate::pattern::parse_pattern;

pub use keys::{List, Make, Order, Prolong, Pubkey, Purge, Remove, Show, Undo};
pub use moving::{Backup, Export, Import, Restore, Seal};

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

/// The modes of the binary. The options of a mode are built when the command line names it: those of all modes
/// would add a sixth to the time of a start.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Answer HTTP requests for keys
    ///
    /// On sockets passed by systemd, the service exits when it has been idle for a while. The next
    /// connection starts it again. After a signal it finishes the requests it works on.
    Serve(Serve),

    /// Sign for the clients of obs-signd, in its place
    ///
    /// Speaks the protocol of obs-signd, so that `sign` and whatever calls it stay as they are. Signs in this
    /// process, as fast as the processors can. The settings of the table [signd] say who may have what signed.
    /// On sockets passed by systemd, it exits when it has been idle for a while.
    Signd(Signd),

    /// Run gpg on the key that a gpg command line is about; the `gpg:` program of obs-signd
    ///
    /// Called as gpg-copr, all arguments are gpg's. See gpg-copr(1).
    Gpg(Gpg),

    /// Say whether this sign host is well, and what to do about what is not
    ///
    /// Goes through settings, gpg, directories, homes, the links of obs-signd, its agent, the signer, units and
    /// expiring keys, in the order in which one thing needs the other. Makes one signature with the newest key,
    /// as `copr-keygen signd` or obs-signd makes it, whichever signs here. Each line that is not well says what to do,
    /// with a command that works as it stands or in words. Changes nothing unless told to with --repair. The
    /// exit status is 0 when no line failed.
    ///
    /// As root it looks at the system as well, and can give files back to their owner.
    Check(Check),

    /// Make a key, unless there is one of this name
    ///
    /// Does what POST /gen_key does. Prints whether the key was made or existed.
    Make(Make),

    /// List keys: a table on a terminal, else a JSON array
    ///
    /// The table has as many columns as the terminal is wide enough for.
    List(List),

    /// Show keys, with their certificates as gpg sees them
    ///
    /// Asks gpg for each certificate: user IDs, expiry, every self-signature. With one name, JSON is one
    /// object; with several names, it is an array.
    Show(Show),

    /// Print the armored certificate of a key, with all its self-signatures
    ///
    /// Publish this certificate. It holds the self-signatures from before a prolongation. Without them,
    /// packages signed earlier stop verifying where a signature is judged by the time it was made.
    Pubkey(Pubkey),

    /// Give keys that expire soon a later expiry
    ///
    /// Keys without an expiry are left alone. Expired keys are left alone unless --expired is given. Every
    /// earlier self-signature stays in the certificate. A new certificate is made aside and checked before
    /// it takes the place of the old one. The mode may run beside everything else, and be interrupted: the
    /// next run goes on. A key that fails does not stop the others, but makes the exit status 1.
    ///
    /// Publish the certificates that have changed: list --changed-since names them. The setting `hook`
    /// names a program that is told about them.
    Prolong(Prolong),

    /// Make secret keys in advance, so that requests need not wait for them
    ///
    /// The setting `pool` says how many. Without systemd, serve does it itself.
    FillPool,

    /// Take over the keys of a GnuPG home that many keys share, like the one of the old service
    ///
    /// Without --from, takes over the keys of the old service in the state directory itself, which goes on
    /// signing meanwhile. Each key makes a signature before the new directories take the place of the old
    /// ones. The old directories are kept in trash/ until `purge`. Prints what is left to do on this host.
    ///
    /// With --from, that home is only read. Keys that cannot be taken over are listed with the reason. The
    /// import may be interrupted and run again.
    Import(Import),

    /// Write all keys into one ordinary GnuPG home with phrases, as the old service had it
    ///
    /// Plain gpg, the old service and others can use that home. At the end a signature is made with every
    /// key, found by its name and opened with its phrase, as the old service did it. A key that cannot be
    /// exported, or does not sign there, is named; the others are there all the same, and the exit status
    /// is 1.
    Export(Export),

    /// Write an encrypted archive of the keys, while everything goes on
    ///
    /// The archive holds secret keys with their passphrases. gpg encrypts it to the given certificates on
    /// its way to the file.
    Backup(Backup),

    /// Put the keys of a decrypted archive back
    ///
    /// Each key makes a signature before it is published. Keys that are there already stay. A certificate
    /// that is newer in the archive takes the place of the older one.
    Restore(Restore),

    /// Print a new token for a client, as a line for the file of tokens
    ///
    /// Put the line into the credential of the service, /etc/credstore/copr-keygen.tokens, or into the file
    /// that the setting tokens_file names. The client sends the second word of the line.
    Token(Token),

    /// Take keys out of use; `undo` brings them back until `purge`
    ///
    /// The home of a key is moved to trash/, beside a revoked certificate that you may publish. Nothing is
    /// published by itself. The next request for the same identity makes another key. When one of several
    /// names has no key, no key is removed.
    Remove(Remove),

    /// Bring a removed key back
    Undo(Undo),

    /// Destroy removed keys, and what is kept of the old service, for good
    ///
    /// Only a backup can bring them back.
    Purge(Purge),

    /// Encrypt all passphrases under the key in the credential passphrase-key
    ///
    /// From then on a stolen disk or backup alone signs nothing, and a process without the credential makes
    /// and prolongs no key. Converts in place while everything goes on. It may be interrupted and run again.
    /// signd then reads passphrases from the setting `phrases_dir`. Read docs/sealing.md first: without the
    /// credential, the keys are lost.
    Seal(Seal),

    /// Take `seal` back: passphrases are in the clear again
    Unseal(Seal),

    /// Take over each key that another host makes, changes or removes, and give the others the keys of this host
    ///
    /// For several hosts that share keys through etcd; see the settings of the table [cluster] and docs/cluster.md.
    /// Runs until it is told to stop, unless --once or --seed is given. Each key makes a signature before it is
    /// published. A key that only this host has is never removed.
    Follow(Follow),

    /// Write the passphrase of each key where obs-signd reads it, and remove passphrases that belong to no key
    ///
    /// Writes files into the directory that the setting `phrases_dir` names, which is empty after a boot.
    /// Without that setting, makes links in phrases/ of the state directory.
    Phrases(Phrases),
}

#[derive(Args, Debug, Default)]
pub struct Serve {
    /// Where to listen when systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated
    /// [default: 127.0.0.1:5003]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
}

#[derive(Args, Debug, Default)]
pub struct Signd {
    /// Where to listen when systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated
    /// [default: 127.0.0.1:5167]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
}

#[derive(Args, Debug, Default)]
pub struct Gpg {
    /// The arguments of gpg
    #[arg(last = true, value_name = "ARG")]
    pub arguments: Vec<OsString>,
}

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

#[derive(Args, Debug)]
pub struct Follow {
    /// Take over the keys that are missing here, then end; the exit status is 1 when one could not be taken over
    #[arg(long)]
    pub once: bool,

    /// Put each key that only this host has into etcd, take over the keys that are missing here, then end
    #[arg(long)]
    pub seed: bool,
}

#[derive(Args, Debug)]
pub struct Phrases {}

#[derive(Args, Debug)]
pub struct Token {
    /// The name of the client in the log: letters, digits, '.', '_' and '-'
    #[arg(value_parser = tokens::parse_name)]
    pub name: String,

    /// What the token allows: generate (POST /gen_key), read (GET /keys and /metrics), or both
    #[arg(long, value_name = "SCOPES", default_value = "generate,read")]
    pub scopes: Scopes,

    /// Shell pattern of the identities it is good for, like '*#*@copr.example.org'; all without it
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    pub pattern: Option<glob::Pattern>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
