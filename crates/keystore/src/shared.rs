//! Keys that several hosts have: somebody else decides which key of an identity counts, and this host has it too.

pub(crate) mod adopt;
pub(crate) mod agreement;
pub(crate) mod change;
pub(crate) mod followed;
pub(crate) mod value;
