//! What obs-signd sees of the keys: the home of the agent that signs, links to secret keys, passphrases.

pub(crate) mod agent;
pub(crate) mod links;
pub(crate) mod phrases;
pub(crate) mod relink;
pub(crate) mod signd;
pub(crate) mod slot;
