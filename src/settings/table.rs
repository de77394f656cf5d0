//! The settings there are: names, defaults and what the manual says about them.

/// A setting as it is documented. The environment variable is the name in capitals behind
/// `COPR_KEYGEN_`, the key in the configuration file is the name itself.
#[derive(Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its text when nobody says anything else; empty for none.
    pub default: &'static str,
    /// What it holds and what it is for: a paragraph of the manual page.
    pub about: &'static str,
}

/// Every setting there is.
pub const SETTINGS: [Setting; 22] = [
    Setting {
        name: "state_dir",
        default: "/var/lib/copr-keygen",
        about: "The directory that holds the keys and all that is derived from them. At most 63 \
                bytes long, because sockets of gpg-agent are made below it. Another one than the \
                default needs drop-ins with ReadWritePaths= for the units.",
    },
    Setting {
        name: "listen",
        default: "127.0.0.1:5003",
        about: "Where serve listens when systemd passes no sockets: HOST:PORT or unix:PATH; several \
                as an array, or separated by spaces. HOST may be a name, which is looked up when serve \
                starts: it listens at every address of the name that this host has.",
    },
    Setting { name: "gpg", default: "/usr/bin/gpg", about: "The gpg program, an absolute path." },
    Setting {
        name: "gpg_agent",
        default: "/usr/bin/gpg-agent",
        about: "The gpg-agent program of the same GnuPG.",
    },
    Setting {
        name: "key_length",
        default: "2048",
        about: "Length in bits of the RSA keys of requests that name none: 2048, 3072 or 4096.",
    },
    Setting {
        name: "expire",
        default: "0",
        about: "Lifetime of the keys of requests that name none: days, or like 2w, 18m, 5y; 0 is \
                for ever.",
    },
    Setting {
        name: "jobs",
        default: "0",
        about: "How many gpg jobs run at once; 0 is one per core.",
    },
    Setting {
        name: "idle_timeout",
        default: "60s",
        about: "How long serve waits without a connection before it exits; 0 is for ever. Counts \
                only on sockets of systemd, where the next connection starts it again.",
    },
    Setting {
        name: "queue_timeout",
        default: "10s",
        about: "How long a request waits for one of the jobs before it is answered 503.",
    },
    Setting {
        name: "gpg_timeout",
        default: "20s",
        about: "How long one run of gpg may take. A request is answered after 24 s in any case.",
    },
    Setting {
        name: "log_level",
        default: "info",
        about: "The least important messages that are logged: off, error, warn, info, debug or \
                trace.",
    },
    Setting {
        name: "pool",
        default: "2048:16",
        about: "How many secret keys of which length are made in advance by fill-pool: \
                LENGTH:COUNT, several as an array or separated by spaces; empty for none.",
    },
    Setting {
        name: "pool_max_age",
        default: "90d",
        about: "Secret keys made in advance that are older than this are thrown away.",
    },
    Setting {
        name: "hook",
        default: "",
        about: "A program, named by its absolute path, that prolong runs once when certificates \
                have changed, with the names of their identities on its standard input, one a line. \
                When it fails, or prolong was cut off before, the next run names the same again. It \
                runs in the sandbox of copr-keygen-prolong.service.",
    },
    Setting {
        name: "hook_timeout",
        default: "10m",
        about: "How long the hook may run. Then it is told to end (SIGTERM), five seconds later it is \
                killed with all it has started, and prolong fails.",
    },
    Setting {
        name: "metrics_file",
        default: "",
        about: "A file, named by its absolute path, that prolong writes metrics to for the textfile \
                collector of the Prometheus node exporter. Its name must end in .prom, and \
                copr-keygen-prolong.service needs a drop-in with ReadWritePaths= for its directory.",
    },
    Setting {
        name: "tokens_file",
        default: "",
        about: "A file, named by its absolute path, with the tokens that let clients in: one line each, \
                NAME TOKEN SCOPES [PATTERN], as copr-keygen token prints it. A NAME may be there more \
                than once, while one token takes the place of another. The file must be a regular file \
                of root or of the user of serve, with mode 0600 or 0400. Under systemd leave this empty \
                and use the credential: /etc/credstore/copr-keygen.tokens.",
    },
    Setting {
        name: "allow_users",
        default: "",
        about: "Users who need no token on a Unix socket: names or numbers, several as an array or \
                separated by spaces. When neither this nor allow_groups names anybody, the mode of the \
                socket decides, and who can connect needs none.",
    },
    Setting {
        name: "allow_groups",
        default: "",
        about: "Groups whose members need no token on a Unix socket, like allow_users. Counted are the \
                group of the process that connects and the groups that this host knows its user to be \
                in.",
    },
    Setting {
        name: "allow_anonymous",
        default: "false",
        about: "Whether serve starts on an address that other hosts can reach while there are no \
                tokens: true or false. Everybody who can connect may then have keys made.",
    },
    Setting {
        name: "passphrase_key_file",
        default: "",
        about: "A file, named by its absolute path, with the key that passphrases are sealed with: 64 \
                hexadecimal digits, or 32 random bytes or more. Only for hosts without systemd, where \
                it is the credential passphrase-key. It must belong to root or the owner of the keys, \
                with no permissions for others.",
    },
    Setting {
        name: "phrases_dir",
        default: "",
        about: "A directory in memory (tmpfs), named by its absolute path, in which obs-signd finds \
                passphrases, like /run/copr-keygen/phrases; needed when they are sealed. Empty for \
                links in phrases/ of the state directory.",
    },
];
