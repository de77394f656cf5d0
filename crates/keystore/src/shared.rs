//! Keys that several hosts have. Something outside of this host decides which key of an identity counts, and
//! every host keeps that key.

pub(crate) mod adopt;
pub(crate) mod agreement;
pub(crate) mod change;
pub(crate) mod followed;
pub(crate) mod value;
