//! The layout of the state directory. Every name in it is defined here, and only here.

/// The directory of the homes, one for each identity.
pub const KEYS: &str = "keys";
/// The GnuPG home of the agent that signs.
pub const GNUPG: &str = "gnupg";
/// The directory in `gnupg/` with a link to each secret key.
pub const SECRET_KEY_LINKS: &str = "gnupg/private-keys-v1.d";
/// The directory with a link to each passphrase.
pub const PHRASES: &str = "phrases";
/// Secret keys made in advance.
pub const POOL: &str = "pool";
/// Work in progress.
pub const STAGING: &str = "staging";
/// Removed keys. The directory is created when the first key is removed.
pub const TRASH: &str = "trash";
/// In an entry of the trash: the home of the key.
pub const TRASH_HOME: &str = "home";
/// An import in place that has not finished: the new directories, or the old ones that still have to
/// go to the trash.
pub const IMPORTING: &str = "importing";
/// The marker that says that passphrases are sealed.
pub const SEALING: &str = "sealing.json";

/// The file that says which host uses the state. It exists only where another host could use the state, too.
pub const HOST_MARK: &str = "state.host";
/// The file that says how far this host has followed the changes that several hosts share.
pub const CLUSTER: &str = "cluster.json";

/// The directories of the state, as tmpfiles.d makes them.
pub const PARTS: [&str; 6] = [KEYS, GNUPG, SECRET_KEY_LINKS, PHRASES, POOL, STAGING];

/// The end of the name of a trash entry that holds the directories of the old service.
pub const OLD_SERVICE: &str = "old-service";

/// In a home: the public keyring.
pub const PUBRING: &str = "pubring.kbx";
/// In a home: the passphrase of the secret key, one line.
pub const PASSPHRASE: &str = "passphrase";
/// In a home: the directory of the secret key.
pub const SECRET_KEYS: &str = "private-keys-v1.d";
/// In a home: the directory of the revocation certificate.
pub const REVOCATIONS: &str = "openpgp-revocs.d";
/// In a home: what is known of the key without asking gpg.
pub const RECORD: &str = "key.json";
/// gpg's trust database, which no home here needs.
pub const TRUST_DATABASE: &str = "trustdb.gpg";

/// The mode of every directory of the state.
pub const DIRECTORY_MODE: u32 = 0o700;
/// The mode of every file of the state.
pub const FILE_MODE: u32 = 0o600;

/// Returns the name of the file with the revocation certificate of this key.
pub fn revocation_file(fingerprint: &gpg::Fingerprint) -> String {
    format!("{fingerprint}.rev")
}
