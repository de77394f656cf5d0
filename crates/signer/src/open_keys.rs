//! Shares decrypted secret keys between concurrent requests. Decrypting a key costs more than an RSA-2048
//! signature, so all requests for the key of one identity share it. The key is dropped with the last of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use gpg::locks::unpoisoned;
use keystore::{NameEmail, SigningFiles};
use openssl::sha::Sha256;

use crate::secret_key::SecretKey;

/// The secret keys of the requests that are under way, by identity.
#[derive(Debug, Default)]
pub struct OpenKeys(Mutex<HashMap<NameEmail, Weak<OpenKey>>>);

/// The secret key of one identity, once a request has opened it. The digest tells from which files.
#[derive(Default)]
pub struct OpenKey(Mutex<Option<(FilesDigest, Opened)>>);

/// A secret key, or `None` if only gpg-agent can sign with it. `Err` is a sentence.
pub type Opened = Result<Option<Arc<SecretKey>>, String>;

/// The SHA-256 digest of everything that a key is opened from.
type FilesDigest = [u8; 32];

impl OpenKeys {
    /// Returns the slot that all requests for the key of `name_email` share. A request holds it from before it
    /// waits for its turn until its end.
    pub fn of(&self, name_email: &NameEmail) -> Arc<OpenKey> {
        let mut keys = unpoisoned(self.0.lock());
        if let Some(key) = keys.get(name_email).and_then(Weak::upgrade) {
            return key;
        }
        keys.retain(|_, key| key.strong_count() > 0);
        let key = Arc::new(OpenKey::default());
        keys.insert(name_email.clone(), Arc::downgrade(&key));
        key
    }
}

impl OpenKey {
    /// Returns the key in `files`. If these very files were opened before, the earlier result is returned;
    /// otherwise `open` opens them.
    pub fn get(
        &self,
        files: &SigningFiles,
        open: impl FnOnce() -> Result<Option<SecretKey>, String>,
    ) -> Opened {
        let digest = digest(files);
        match &*unpoisoned(self.0.lock()) {
            Some((of, opened)) if *of == digest => return opened.clone(),
            _ => {}
        }
        // The lock is not held during `open`. A request that comes meanwhile opens the key itself, on another
        // processor.
        let opened = open().map(|key| key.map(Arc::new));
        *unpoisoned(self.0.lock()) = Some((digest, opened.clone()));
        opened
    }

    /// Drops the key, because it may no longer sign. A failure to open it is kept, because finding out again
    /// may take long.
    pub fn forget(&self) {
        unpoisoned(self.0.lock()).take_if(|(_, opened)| opened.is_ok());
    }
}

fn digest(files: &SigningFiles) -> FilesDigest {
    let mut digest = Sha256::new();
    for part in [&files.pubring[..], &files.secret_key, &files.passphrase] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use gpg::Keygrip;
    use zeroize::Zeroizing;

    use super::*;
    use crate::key_file;
    use crate::public_key::PublicKey;

    fn files(passphrase: &str) -> Option<SigningFiles> {
        let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        Some(SigningFiles {
            keygrip: Keygrip::parse(&"A".repeat(40))?,
            pubring: bytes("pubring"),
            secret_key: bytes(
                "(private-key (rsa (n #21#)(e #03#)(d #05#)(p #05#)(q #05#)(u #05#)))",
            ),
            passphrase: bytes(passphrase),
        })
    }

    fn open(files: &SigningFiles) -> Result<Option<SecretKey>, String> {
        let public = PublicKey::Rsa { number: 1, n: vec![0x21], e: vec![3] };
        let numbers = key_file::open(&files.secret_key, &files.passphrase);
        let numbers = numbers.map_err(|e| format!("{e:?}"))?;
        SecretKey::new(&numbers, &public).map(Some).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn a_key_is_opened_once_for_the_requests_under_way_and_gone_with_the_last() {
        let (keys, times) = (OpenKeys::default(), Cell::new(0));
        let (Ok(name), Ok(other)) =
            (NameEmail::parse("user#a@example.org"), NameEmail::parse("user#b@example.org"))
        else {
            panic!("an identity");
        };
        let (Some(files), Some(changed)) = (files("phrase"), files("another")) else {
            panic!("a keygrip");
        };
        let open = |files: &SigningFiles| {
            times.set(times.get() + 1);
            open(files)
        };
        let (first, waiting) = (keys.of(&name), keys.of(&name));
        let key = first.get(&files, || open(&files));
        let key = key.ok().flatten().map(|key| Arc::downgrade(&key)).unwrap_or_default();
        drop(first);
        // The waiting request gets the key without opening it.
        assert!(waiting.get(&files, || open(&files)).is_ok_and(|key| key.is_some()));
        assert_eq!(times.get(), 1);
        // A request for another identity, or with other files, does not get this key.
        assert!(keys.of(&other).get(&files, || open(&files)).is_ok());
        assert_eq!(times.get(), 2);
        assert!(waiting.get(&changed, || Err("damaged".into())).is_err());
        assert!(key.upgrade().is_none(), "the one of the files before is gone");
        // A failure is remembered.
        waiting.forget();
        assert!(waiting.get(&changed, || open(&changed)).is_err());
        assert_eq!(times.get(), 2);
        let key = waiting.get(&files, || open(&files));
        let key = key.ok().flatten().map(|key| Arc::downgrade(&key)).unwrap_or_default();
        assert_eq!((times.get(), key.strong_count()), (3, 1));
        waiting.forget();
        assert_eq!(key.strong_count(), 0);
        let key = waiting.get(&files, || open(&files));
        let key = key.ok().flatten().map(|key| Arc::downgrade(&key)).unwrap_or_default();
        assert_eq!((times.get(), key.strong_count()), (4, 1));
        drop(waiting);
        assert_eq!(key.strong_count(), 0);
        drop(keys.of(&other));
        assert_eq!(unpoisoned(keys.0.lock()).len(), 1, "no name is kept without a request");
    }
}
