//! What obs-signd sees of the keys: the home of the agent that signs, links to secret keys, passphrases.

pub(crate) mod agent_home;
pub(crate) mod link_problems;
pub(crate) mod phrase_files;
pub(crate) mod publish;
pub(crate) mod signd_view;
pub(crate) mod slot;
pub(crate) mod sync_links;
