//! The table of settings: the name of each, its type, its default, its parser, and its paragraph of the manual.
//! A new setting is a new entry here.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Directory, Endpoint};
use gpg::{KeyLength, Lifetime};
use keystore::{SealingKey, Stock};
use log::LevelFilter;

use super::layers::{Layers, Setting};
use super::value::Value;
use super::values::{
    absolute_path, access_rules, duration, endpoints, host_name, jobs, listen_addresses, log_level,
    optional_path, positive_duration, prefix, state_dir, stock, words, yes_or_no,
};
use crate::access_rule::AccessRule;
use crate::error::Result;
use crate::listen_address::ListenAddress;

/// Each setting: the paragraph of the manual, then `name: type = "default", modes(parser);`. A wrong value of
/// a setting of `every_mode` fails them all. One of `some_modes` is a [`Value`], which fails those that ask for it.
/// The members of an array become one text with spaces between, or with what `joined` says.
///
/// Behind the settings at the top of the file come those of its tables.
macro_rules! settings {
    (
        $(
            $(#[doc = $about:literal])+
            $name:ident: $type:ty = $default:literal $(joined $joint:literal)?, $modes:ident($parser:expr);
        )+
        $(
            [$table:ident] $Table:ident {
                $(
                    $(#[doc = $in_about:literal])+
                    $in_name:ident: $in_type:ty = $in_default:literal $(joined $in_joint:literal)?,
                    $in_modes:ident($in_parser:expr);
                )+
            }
        )+
    ) => {
        /// Every setting there is.
        pub const SETTINGS: &[Setting] = &[
            $(Setting {
                name: stringify!($name),
                default: $default,
                joint: [$($joint,)? " "][0],
                about: concat!($($about),+).trim_ascii_start(),
            },)+
            $($(Setting {
                name: concat!(stringify!($table), ".", stringify!($in_name)),
                default: $in_default,
                joint: [$($in_joint,)? " "][0],
                about: concat!($($in_about),+).trim_ascii_start(),
            },)+)+
        ];

        /// The settings in effect.
        #[derive(Clone, Debug)]
        #[allow(rustdoc::broken_intra_doc_links)] // the manual has brackets
        pub struct Settings {
            $($(#[doc = $about])+ pub $name: $type,)+
            $(#[doc = concat!("Those of the table `[", stringify!($table), "]`.")] pub $table: $Table,)+
            /// The key that passphrases are sealed with, for modes that need it: no setting, see
            /// [`Settings::find_sealing_key`].
            pub sealing_key: Option<SealingKey>,
            /// Why that key could not be taken, in modes that can do without.
            pub sealing_key_fault: Option<String>,
            /// What all hosts share, where there is more than one: no setting, see [`Settings::find_cluster`].
            pub cluster_directory: Option<Arc<Directory>>,
            /// Why that could not be found, in modes that can do without.
            pub cluster_fault: Option<String>,
            /// Every setting as it was written, and where that was: name, text, source.
            pub origins: Vec<(String, String, String)>,
            /// The configuration file that `--config` names.
            pub config: Option<PathBuf>,
            /// Environment variables that look like settings of ours and are none.
            pub unknown_variables: Vec<String>,
            /// What is wrong with values, in the order of the settings.
            pub(super) faults: Vec<String>,
        }

        $(
            #[doc = concat!("The settings of the table `[", stringify!($table), "]`.")]
            #[derive(Clone, Debug)]
            pub struct $Table {
                $($(#[doc = $in_about])+ pub $in_name: $in_type,)+
            }
        )+

        impl Settings {
            /// Reads every setting. Fails when the value of one that every mode needs is wrong.
            pub(super) fn parse(mut layers: Layers) -> Result<Self> {
                Ok(Self {
                    $($name: layers.$modes(stringify!($name), $parser)?,)+
                    $($table: $Table {
                        $($in_name: layers.$in_modes(
                            concat!(stringify!($table), ".", stringify!($in_name)),
                            $in_parser,
                        )?,)+
                    },)+
                    sealing_key: None,
                    sealing_key_fault: None,
                    cluster_directory: None,
                    cluster_fault: None,
                    origins: layers.origins(),
                    config: layers.config,
                    unknown_variables: layers.unknown_variables,
                    faults: layers.faults,
                })
            }
        }
    };
}

settings! {
    /// The directory that holds the keys and all that is derived from them. At most 63 bytes long, because
    /// sockets of gpg-agent are made below it. A directory other than the default needs drop-ins with
    /// ReadWritePaths= for the units.
    state_dir: PathBuf = "/var/lib/copr-keygen", every_mode(state_dir);

    /// Where serve listens when systemd passes no sockets: HOST:PORT or unix:PATH; several as an array, or
    /// separated by spaces. HOST may be a name, which is looked up when serve starts: it listens at every
    /// address of the name that this host has.
    listen: Value<Vec<ListenAddress>> = "127.0.0.1:5003", some_modes(listen_addresses);

    /// The gpg program, an absolute path.
    gpg: Value<PathBuf> = "/usr/bin/gpg", some_modes(absolute_path);

    /// The gpg-agent program of the same GnuPG.
    gpg_agent: Value<PathBuf> = "/usr/bin/gpg-agent", some_modes(absolute_path);

    /// Length in bits of the RSA keys of requests that name none: 2048, 3072 or 4096. apt 3 refuses 2048 from
    /// 2030-02-01 on; rpm does not.
    key_length: Value<KeyLength> = "2048", some_modes(KeyLength::from_str);

    /// Lifetime of the keys of requests that name none: days, or like 2w, 18m, 5y; 0 is for ever.
    expire: Value<Lifetime> = "0", some_modes(Lifetime::from_str);

    /// How many gpg jobs run at once; 0 is one per core.
    jobs: Value<usize> = "0", some_modes(jobs);

    /// How long serve waits without a connection before it exits; 0 is for ever. Counts only on sockets of
    /// systemd, where the next connection starts it again.
    idle_timeout: Value<Duration> = "60s", some_modes(duration);

    /// How long a request waits for one of the jobs before it is answered 503.
    queue_timeout: Value<Duration> = "10s", some_modes(duration);

    /// How long one run of gpg may take. A request is answered after 24 s in any case.
    gpg_timeout: Value<Duration> = "20s", some_modes(positive_duration);

    /// The least important messages that are logged: off, error, warn, info, debug or trace.
    log_level: LevelFilter = "info", every_mode(log_level);

    /// How many secret keys of which length are made in advance by fill-pool: LENGTH:COUNT, several as an
    /// array or separated by spaces; empty for none.
    pool: Value<Vec<Stock>> = "2048:16", some_modes(stock);

    /// Secret keys made in advance that are older than this are thrown away.
    pool_max_age: Value<Duration> = "90d", some_modes(positive_duration);

    /// A program, named by its absolute path, that prolong runs once when certificates have changed, with
    /// the names of their identities on its standard input, one a line. When it fails, or prolong was cut
    /// off before, the next run names the same again. It runs in the sandbox of
    /// copr-keygen-prolong.service.
    hook: Value<Option<PathBuf>> = "", some_modes(optional_path);

    /// How long the hook may run. Then it is told to end (SIGTERM), five seconds later it is killed with
    /// all it has started, and prolong fails.
    hook_timeout: Value<Duration> = "10m", some_modes(positive_duration);

    /// A file, named by its absolute path, that prolong writes metrics to for the textfile collector of the
    /// Prometheus node exporter. Its name must end in .prom, and copr-keygen-prolong.service needs a
    /// drop-in with ReadWritePaths= for its directory. It must not be in state_dir. A file of that
    /// name that does not hold such metrics is not replaced.
    metrics_file: Value<Option<PathBuf>> = "", outside_state(optional_path);

    /// A file, named by its absolute path, with the tokens that let clients in: one line each, NAME TOKEN
    /// SCOPES [PATTERN], as copr-keygen token prints it. A NAME may be there more than once, while one
    /// token takes the place of another. The file must be a regular file of root or of the user of serve,
    /// with mode 0600 or 0400. Under systemd leave this empty and use the credential:
    /// /etc/credstore/copr-keygen.tokens.
    tokens_file: Value<Option<PathBuf>> = "", some_modes(optional_path);

    /// Users who need no token on a Unix socket: names or numbers, several as an array or separated by
    /// spaces. When neither this nor allow_groups names any, the mode of the socket decides, and no user
    /// that can connect needs a token.
    allow_users: Value<Vec<String>> = "", some_modes(words);

    /// Groups whose members need no token on a Unix socket, like allow_users. The group of the
    /// process that connects counts, and so do the groups that this host knows its user to be in.
    allow_groups: Value<Vec<String>> = "", some_modes(words);

    /// Whether serve starts on an address that other hosts can reach while there are no tokens: true or
    /// false. Everybody who can connect may then have keys made.
    allow_anonymous: Value<bool> = "false", some_modes(yes_or_no);

    /// A file, named by its absolute path, with the key that passphrases are sealed with: 64 hexadecimal
    /// digits, or 32 random bytes or more. Only for hosts without systemd, where it is the credential
    /// passphrase-key. It must belong to root or the owner of the keys, with no permissions for others.
    passphrase_key_file: Value<Option<PathBuf>> = "", some_modes(optional_path);

    /// A directory in memory (tmpfs), named by its absolute path, in which obs-signd finds passphrases,
    /// like /run/copr-keygen/phrases; needed when they are sealed. Empty for links in phrases/ of the state
    /// directory.
    phrases_dir: Value<Option<PathBuf>> = "", some_modes(optional_path);

    [signd] SigndSettings {
        /// Where signd listens when systemd passes no sockets, written like listen.
        listen: Value<Vec<ListenAddress>> = "127.0.0.1:5167", some_modes(listen_addresses);

        /// Which clients may sign with which keys: rules as an array, or separated by commas. A rule begins with
        /// its clients: an IP address, a network like 192.0.2.0/24, or unix: and the name or number of a user
        /// who connects to a Unix socket. Shell patterns of identities follow, separated by spaces: the clients
        /// may sign with their keys. A client that no rule names is refused. When there are no rules, loopback
        /// addresses, the user of signd and root may sign with all keys. Users are looked up when signd starts.
        allow: Value<Vec<AccessRule>> = "" joined ", ", some_modes(access_rules);

        /// Whether clients over TCP must connect from a port below 1024, which only root can do, as
        /// obs-signd asks of them: true or false.
        reserved_ports: Value<bool> = "false", some_modes(yes_or_no);

        /// Whether SHA1 digests are signed: true or false. Today's verifiers refuse such signatures.
        sha1: Value<bool> = "false", some_modes(yes_or_no);

        /// Whether keys that have expired sign all the same: true or false. Some verifiers refuse such a
        /// signature for ever, also once the key has been prolonged.
        expired: Value<bool> = "false", some_modes(yes_or_no);

        /// How many operations with secret keys run at once; 0 is one per core.
        jobs: Value<usize> = "0", some_modes(jobs);

        /// A file, named by its absolute path, that signd writes metrics to for the textfile collector of
        /// the Prometheus node exporter. Its name must end in .prom, and copr-keygen-signd.service needs a
        /// drop-in with ReadWritePaths= for its directory. The rest of what is said of metrics_file applies to it too.
        metrics_file: Value<Option<PathBuf>> = "", outside_state(optional_path);
    }

    [cluster] ClusterSettings {
        /// The members of etcd that decide which key counts where several hosts keep the same keys, as an array
        /// or separated by spaces: https://HOST:PORT; http:// with an address of this host only. Empty for a
        /// host that is alone. See docs/cluster.md.
        endpoints: Value<Vec<Endpoint>> = "", some_modes(endpoints);

        /// The prefix of all names of this service in etcd, the same on every host.
        prefix: Value<String> = "/copr-keygen", some_modes(prefix);

        /// The name of this host, different from the names of the others. Empty for its host name.
        host: Value<String> = "", some_modes(host_name);

        /// The certificates (PEM) of the authorities that etcd's certificates come from, in a file named by its
        /// absolute path. Under systemd leave this empty and use the credential: /etc/credstore/cluster-ca.
        ca_file: Value<Option<PathBuf>> = "", some_modes(optional_path);

        /// The certificate (PEM) by which etcd knows this host. Under systemd it is the credential
        /// cluster-cert.
        cert_file: Value<Option<PathBuf>> = "", some_modes(optional_path);

        /// The secret key (PEM) of that certificate. Under systemd it is the credential cluster-key. The file
        /// must belong to root or the owner of the keys, with no permissions for others.
        key_file: Value<Option<PathBuf>> = "", some_modes(optional_path);
    }
}
