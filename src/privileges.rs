//! Drops root privileges for good, in favour of the owner of the keys.

use std::ffi::CString;
use std::path::Path;

use keystore::remedy::quote_path;
use keystore::{nobodys, owner_of, volume_group};
use nix::unistd::{
    Gid, Uid, User, geteuid, getgroups, getresgid, getresuid, initgroups, setgroups, setresgid,
    setresuid,
};

use crate::error::{Error, Result};

/// Makes a root process run as the owner of the state in `directory`. Sets and then verifies the supplementary
/// groups, the group and the user, and checks that there is no way back. Does nothing if this process is not
/// root.
pub fn become_owner(directory: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let failed = |doing: &str, e: std::io::Error| {
        Error::io(format!("becoming the owner of {}: {doing}", directory.display()), e)
    };
    let owner = owner_of(directory).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Settings(format!(
            "there is no state at {}: no such directory; is the setting state_dir right? root does \
             not know who shall own a new one; for the user of the package, make it with: install -d \
             -m 0700 -o copr-signer -g copr-signer {}",
            directory.display(),
            quote_path(directory)
        )),
        _ => failed("looking at it", e),
    })?;
    let Some((uid, gid)) = owner else {
        let (why, remedy) = nobodys(directory);
        return Err(Error::Settings(format!("{}: {why}; {remedy}", directory.display())));
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid.is_root() {
        return Ok(());
    }
    let user = User::from_uid(uid).map_err(|e| failed("finding the user", e.into()))?;
    let gid = user.as_ref().map_or(gid, |user| user.gid);
    match user.and_then(|user| CString::new(user.name).ok()) {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    }
    .map_err(|e| {
        let doing = format!("setting groups; where root may not do that, start this as uid {uid}");
        failed(&doing, e.into())
    })?;
    if let Some(group) = volume_group(directory) {
        let groups = getgroups().map(|mut groups| {
            groups.push(Gid::from_raw(group));
            groups
        });
        groups
            .and_then(|groups| setgroups(&groups))
            .map_err(|e| failed("setting the group of the volume", e.into()))?;
    }
    setresgid(gid, gid, gid).map_err(|e| failed("setting the group", e.into()))?;
    setresuid(uid, uid, uid).map_err(|e| failed("setting the user", e.into()))?;

    let users = getresuid().map_err(|e| failed("checking the user", e.into()))?;
    let groups = getresgid().map_err(|e| failed("checking the group", e.into()))?;
    let others = getgroups().map_err(|e| failed("checking groups", e.into()))?;
    let root = Uid::from_raw(0);
    let dropped = [users.real, users.effective, users.saved] == [uid; 3]
        && [groups.real, groups.effective, groups.saved] == [gid; 3]
        && !others.contains(&Gid::from_raw(0))
        && setresuid(root, root, root).is_err();
    if !dropped {
        return Err(failed("checking", std::io::Error::other("privileges were not given up")));
    }
    Ok(())
}
