//! Looks after keys: lists, inspects, prolongs, removes and revokes them, seals their passphrases.

pub(crate) mod catalog;
pub(crate) mod convert_passphrases;
pub(crate) mod inspector;
pub(crate) mod passphrase_locations;
pub(crate) mod plaintext_copies;
pub(crate) mod prolong;
pub(crate) mod revoke;
pub(crate) mod trash;
