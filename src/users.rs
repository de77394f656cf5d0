//! Looks up users and groups of this host, which settings give by name or by number.

use nix::unistd::{Gid, Group, Uid, User};

use crate::error::{Error, Result};

/// Returns the user that `setting` gives as `name`, a user name or a number. A number need not exist on this
/// host.
pub fn user(setting: &str, name: &str) -> Result<Uid> {
    match number(name) {
        Some(number) => Ok(Uid::from_raw(number)),
        None => known(setting, name, User::from_name(name)).map(|user| user.uid),
    }
}

/// Returns the group that `setting` gives as `name`, a group name or a number. A number need not exist on this
/// host.
pub fn group(setting: &str, name: &str) -> Result<Gid> {
    match number(name) {
        Some(number) => Ok(Gid::from_raw(number)),
        None => known(setting, name, Group::from_name(name)).map(|group| group.gid),
    }
}

/// Parses the number of a user or group. Rejects the highest number, which system calls such as setresuid(2)
/// take to mean "leave unchanged".
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_that_is_known_or_any_number() {
        let users = ["root", "0", "4294967294"].map(|name| user("allow", name).unwrap().as_raw());
        assert_eq!(users, [0, 0, 4294967294]);
        assert_eq!(group("allow", "root").unwrap(), Gid::from_raw(0));
        for name in ["", "no-such-user", "-1", "+1", "4294967295", "4294967296"] {
            let error = user("allow", name).unwrap_err().to_string();
            assert_eq!(error, format!("allow: {name:?} is not known on this host"));
        }
    }
}
