//! What protects a secret key: its passphrase, and the key that passphrases are sealed with.

pub(crate) mod passphrase;
pub(crate) mod sealing_key;
pub(crate) mod sealing_marker;
