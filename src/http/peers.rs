//! The users of this host that need no token on a Unix socket.

use std::ffi::CString;

use nix::sys::socket::UnixCredentials;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::error::Result;
use crate::settings::Settings;
use crate::users;

/// The users and groups of the settings `allow_users` and `allow_groups`.
#[derive(Debug)]
pub struct Peers {
    users: Vec<Uid>,
    groups: Vec<Gid>,
}

impl Peers {
    /// Looks up the users and groups of the settings.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let user = |name: &String| users::user("allow_users", name);
        let group = |name: &String| users::group("allow_groups", name);
        Ok(Self {
            users: settings.allow_users.get()?.iter().map(user).collect::<Result<_>>()?,
            groups: settings.allow_groups.get()?.iter().map(group).collect::<Result<_>>()?,
        })
    }

    /// Whether a peer needs no token. If the settings name no user and no group, this is true of every peer:
    /// the mode of the socket has already decided who may connect.
    pub fn allow(&self, peer: UnixCredentials) -> bool {
        let (uid, gid) = (Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()));
        self.users.is_empty() && self.groups.is_empty()
            || self.users.contains(&uid)
            || self.groups.contains(&gid)
            || !self.groups.is_empty() && groups_of(uid).iter().any(|g| self.groups.contains(g))
    }
}

/// Returns the groups of the user in the databases of this host. (The peer's own list, SO_PEERGROUPS, cannot be
/// read without `unsafe`.)
fn groups_of(uid: Uid) -> Vec<Gid> {
    let user = User::from_uid(uid).ok().flatten();
    let named = user.and_then(|user| Some((CString::new(user.name).ok()?, user.gid)));
    named.and_then(|(name, gid)| getgrouplist(&name, gid).ok()).unwrap_or_default()
}
