//! The users of this host that need no token on a Unix socket.

use std::ffi::CString;

use nix::sys::socket::UnixCredentials;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The users and groups of the settings `allow_users` and `allow_groups`.
#[derive(Debug)]
pub struct Peers {
    users: Vec<Uid>,
    groups: Vec<Gid>,
}

impl Peers {
    /// Looks the names up.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let user = |name: &String| match number(name) {
            Some(number) => Ok(Uid::from_raw(number)),
            None => known("allow_users", name, User::from_name(name)).map(|user| user.uid),
        };
        let group = |name: &String| match number(name) {
            Some(number) => Ok(Gid::from_raw(number)),
            None => known("allow_groups", name, Group::from_name(name)).map(|group| group.gid),
        };
        Ok(Self {
            users: settings.allow_users.get()?.iter().map(user).collect::<Result<_>>()?,
            groups: settings.allow_groups.get()?.iter().map(group).collect::<Result<_>>()?,
        })
    }

    /// Whether a peer needs no token. When the settings name no user and no group, the mode of the socket has
    /// decided already.
    pub fn allow(&self, peer: UnixCredentials) -> bool {
        let (uid, gid) = (Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()));
        self.users.is_empty() && self.groups.is_empty()
            || self.users.contains(&uid)
            || self.groups.contains(&gid)
            || !self.groups.is_empty() && groups_of(uid).iter().any(|g| self.groups.contains(g))
    }
}

/// The number of a user or group. System calls take the highest for "leave it as it is", so it names none.
fn number(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number != u32::MAX)
}

fn known<T>(setting: &str, name: &str, found: nix::Result<Option<T>>) -> Result<T> {
    let refuse = |why: String| Error::Settings(format!("{setting}: {name:?} {why}"));
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(refuse("is not known on this host".into())),
        Err(e) => Err(refuse(format!("cannot be looked up: {e}"))),
    }
}

/// The groups that the databases of this host give the user. (The peer's own list, SO_PEERGROUPS, is out
/// of reach without `unsafe`.)
fn groups_of(uid: Uid) -> Vec<Gid> {
    let user = User::from_uid(uid).ok().flatten();
    let named = user.and_then(|user| Some((CString::new(user.name).ok()?, user.gid)));
    named.and_then(|(name, gid)| getgrouplist(&name, gid).ok()).unwrap_or_default()
}
