//! Keeps the keys of a sign host. Each identity has one GnuPG home below `keys/`, which is written by `rename`
//! only. Everything in `gnupg/` and `phrases/` is derived from `keys/` and repaired when a key is asked for.
//!
//! The modules follow the life of a key. [`identity`] parses the names that come from outside, `home` is one
//! GnuPG home, and `state` is the directory around the homes. `secrets` protect a home, `make` makes one, and
//! `view` is what obs-signd sees of the homes. `keep` looks after them, `transfer` brings them in and out,
//! and `shared` is about keys that other hosts have, too.

pub mod error;
mod files;
mod home;
pub mod identity;
pub mod interrupt;
mod keep;
mod key_request;
pub mod layout;
mod make;
mod options;
pub mod parallel;
pub mod remedy;
#[cfg(test)]
mod scratch;
mod secrets;
mod shared;
mod signing_keys;
mod state;
mod store;
mod transfer;
mod view;

pub use error::{Error, Result};
pub use files::FileId;
pub use files::durable::{rename, rename_by};
pub use files::make_directory as make_part;
pub use files::small_files::{Symlinks, beginning, open_regular};
pub use home::Homes;
pub use home::clock_evidence::Evidence;
pub use home::contents::Home;
pub use home::faults::{Fault, judge};
pub use home::record::KeyRecord;
pub use home::staging::clear::StagingWork;
pub use identity::NameEmail;
pub use keep::catalog::{Catalog, Filter, Key, Listed};
pub use keep::convert_passphrases::{Conversion, Talk};
pub use keep::inspector::{Inspector, check_path_length};
pub use keep::prolong::{Prolonged, Term};
pub use keep::trash::Removed;
pub use key_request::KeyRequest;
pub use layout::{DIRECTORY_MODE, IMPORTING, PARTS, TRUST_DATABASE};
pub use make::Outcome;
pub use make::job_queue::RunningJob;
pub use make::limits::{INSIDE_MAX, LOOKS_MAX};
pub use make::pool::count as pool_count;
pub use make::pool_filling::Stock;
pub use options::Options;
pub use secrets::passphrase::{Form, Passphrases, needs_directory as needs_phrases_dir};
pub use secrets::sealing_key::{CREDENTIAL, SealingKey};
pub use secrets::sealing_marker::{Marker, Sealing, SealingProof};
pub use shared::adopt::Adopted;
pub use shared::agreement::{Agreed, Agreement};
pub use shared::change::Offered;
pub use shared::followed::{Followed, Moment};
pub use shared::value::Shared;
pub use signing_keys::{SigningFiles, SigningKeys};
pub use state::directory::{
    check_outside, check_root, check_user, is_volume, nobodys, owner_of, volume_group,
};
pub use state::foreign_files::{ForeignFile, Owner, give_back, set_mode};
pub use state::free_space::Space;
pub use state::old_keyring::find as old_keyring;
pub use state::{lost_keys, nested};
pub use store::{Store, Workplace};
pub use transfer::archive::{self, Archived, Restored, Summary};
pub use transfer::import::one_key::ImportOptions;
pub use transfer::import::source::ImportSource;
pub use transfer::in_place::OldLayout;
pub use transfer::report::{
    ExportReport, FoundKey, ImportReport, Keyless, Loss, MissingKey, NamedKey, Shadowed, Unread,
    UnreadKey,
};
pub use view::agent_home::{Agent, AgentHome, Configuration};
pub use view::link_problems::{LinkFault, LinkProblem};
pub use view::sync_links::Provided;
