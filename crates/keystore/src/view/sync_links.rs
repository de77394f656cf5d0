//! Keeps the links for obs-signd in step with `keys/` while keys come and go. After adding or removing a link,
//! a process checks whether the home is still there. So, whatever two processes do at the same time, the last
//! of them leaves links to what exists and none to what does not.

use gpg::{Keygrip, text};

use crate::error::{Error, Result};
use crate::files::is_there;
use crate::home::on_disk::HomeVersion;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::{Store, interrupt};

/// The result of giving phrases to signd.
#[derive(Debug, Default)]
pub struct Provided {
    /// The number of keys that signd can sign with.
    pub keys: usize,
    /// The number of keys that could not be read or linked. Each failure has been logged.
    pub failed: usize,
    /// The number of removed phrases that belonged to no key.
    pub removed: usize,
}

/// A key whose links are in place.
struct Linked {
    record: KeyRecord,
    /// The version of the home after the links were made.
    seen: HomeVersion,
    /// Whether the phrase link was missing and has been made.
    is_new: bool,
}

impl Store {
    /// Gives signd every key with its phrase, and removes the phrase files that belong to no key. Calls `each`
    /// after every identity.
    pub fn provide_phrases(&self, each: &dyn Fn()) -> Result<Provided> {
        let mut provided = Provided::default();
        for name_email in self.homes.identities()? {
            interrupt::check(|| {
                let keys = text::keys(provided.keys);
                format!("signd has the phrases of {keys}, not of all; run it again to go on")
            })?;
            match self.link(&name_email?) {
                Ok(Some(_)) => provided.keys += 1,
                Ok(None) => {}
                Err(error @ (Error::Gpg(gpg::Error::NoSpace { .. }) | Error::Settings(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    log::error!("{error}");
                    provided.failed += 1;
                }
            }
            each();
        }
        self.on_disk.sync()?;
        if let Some(files) = self.signd.phrase_files() {
            provided.removed += files.remove_strangers()?;
        }
        Ok(provided)
    }

    /// Repairs the links of an identity's key and returns its record once all of it is on the disk. Returns
    /// `None` if there is no key.
    pub(crate) fn relink(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        let Some(linked) = self.link(name_email)? else { return Ok(None) };
        if linked.is_new {
            self.on_disk.sync()?;
            self.on_disk.learn(name_email, linked.seen);
        } else {
            self.on_disk.make_sure(name_email, linked.seen)?;
        }
        Ok(Some(linked.record))
    }

    /// Repairs the links of an identity's key. They need not be on the disk yet.
    fn link(&self, name_email: &NameEmail) -> Result<Option<Linked>> {
        while let Some(record) = self.homes.find(name_email)? {
            self.signd.add_secret_key(name_email, &record.keygrip)?;
            let is_new = self.signd.add_phrase(name_email)?;
            let home = self.homes.path(name_email);
            let seen = HomeVersion::of(&home);
            if let (Some(seen), true) = (seen, is_there(&record.secret_key(&home))?) {
                return Ok(Some(Linked { record, seen, is_new }));
            }
            self.signd.remove_dangling_phrase(name_email);
            self.signd.remove_dangling_secret_key(&record.keygrip);
        }
        Ok(None)
    }

    /// Removes the links to a key whose home has left `keys/`. If the identity has another home by now, its
    /// links are repaired.
    pub(crate) fn unlink(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<()> {
        self.signd.remove_dangling_phrase(name_email);
        self.signd.remove_dangling_secret_key(keygrip);
        self.relink(name_email).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::options::Options;
    use crate::scratch::scratch;
    use gpg::Gpg;

    const DIGITS: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

    fn make_home(home: &Path) -> std::io::Result<()> {
        fs::create_dir(home)?;
        for directory in ["private-keys-v1.d", "openpgp-revocs.d"] {
            fs::create_dir(home.join(directory))?;
        }
        let files =
            [format!("private-keys-v1.d/{DIGITS}.key"), format!("openpgp-revocs.d/{DIGITS}.rev")];
        for file in ["pubring.kbx", "passphrase", &files[0], &files[1]] {
            fs::write(home.join(file), "x")?;
        }
        Ok(())
    }

    /// Calls [`Store::relink`] over and over from eight threads while `change` runs.
    fn under_relinking(
        store: &Store,
        name: &NameEmail,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(store.relink(name).is_ok());
                    }
                });
            }
            let changed = change();
            done.store(true, Ordering::Relaxed);
            changed
        })
    }

    #[test]
    fn links_follow_a_home_that_comes_and_goes_while_others_repair_them() -> Result<()> {
        let scratch = scratch();
        let root = scratch.path();
        let options = Options {
            state_dir: root.into(),
            jobs: 1,
            queue_timeout: Duration::from_secs(1),
            pool_max_age: Duration::from_secs(1),
            phrases_dir: None,
            sealing_key: None,
            agreement: None,
        };
        let timeout = Duration::from_secs(20);
        let gpg = Gpg::new("/usr/bin/gpg".into(), "/usr/bin/gpg-agent".into(), timeout)?;
        let store = Store::open(&options, gpg)?;
        let name = NameEmail::parse("a#b@c")?;
        let Some(keygrip) = Keygrip::parse(DIGITS) else { unreachable!("it is one") };
        let (home, aside) = (store.homes.path(&name), root.join("aside"));
        assert!(make_home(&home).is_ok());
        let links = [
            root.join("phrases/a#b@c"),
            root.join("gnupg/private-keys-v1.d").join(keygrip.file_name()),
        ];
        for round in 0..150 {
            under_relinking(&store, &name, || {
                assert!(fs::rename(&home, &aside).is_ok());
                store.unlink(&name, &keygrip)
            })?;
            for link in &links {
                assert!(fs::symlink_metadata(link).is_err(), "{round}: a link to nothing");
            }
            under_relinking(&store, &name, || {
                assert!(fs::rename(&aside, &home).is_ok());
                store.relink(&name).map(drop)
            })?;
            assert!(links.iter().all(|link| link.exists()), "{round}: a key without a link");
        }
        Ok(())
    }
}
