//! Looks after keys: lists, inspects, prolongs, removes and revokes them.

pub(crate) mod catalog;
pub(crate) mod inspector;
pub(crate) mod prolong;
pub(crate) mod revoke;
pub(crate) mod trash;
