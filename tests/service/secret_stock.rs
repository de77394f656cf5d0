//! Secret keys that tests share. Most tests need a key, but no new secret key, and gpg looks for primes for half
//! a second. So a secret key that was made for one test is put into the pool of a host of another test. The
//! service makes a certificate of its own with it. No test gets the same secret key twice.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use nix::unistd::geteuid;

use super::host::Host;

/// A secret key of RSA-2048 with its passphrase.
#[derive(Clone)]
struct Secret {
    grip: String,
    key: Vec<u8>,
    passphrase: Vec<u8>,
}

static STOCK: Mutex<Vec<Secret>> = Mutex::new(Vec::new());

/// How many are kept. A test that asks for more keys has some of them made.
const MOST: usize = 24;

thread_local! {
    /// The keygrips of the secret keys that the test has. Each test has a thread of its own.
    static USED: RefCell<HashSet<String>> = RefCell::default();
}

/// Has `make` make the key of `name_email` on `host`, with a secret key of the stock if there is one. Otherwise
/// the new one is kept for other tests.
pub fn with_stock<T>(host: &Host, name_email: &str, make: impl FnOnce() -> T) -> T {
    // Threads that a test starts have no names, and do not know what the test has used.
    let is_test = thread::current().name().is_some_and(|name| name != "main");
    let pool = host.state().join("pool");
    let is_ours = fs::metadata(&pool).is_ok_and(|found| found.uid() == geteuid().as_raw());
    let pool = pool.join("rsa2048");
    let is_sealed = host.state().join("sealing.json").exists();
    let has_key = host.home(name_email).exists();
    if !is_test || !is_ours || pool.exists() || is_sealed || has_key {
        return make();
    }
    let is_new = |secret: &&Secret| USED.with_borrow(|used| !used.contains(&secret.grip));
    let found = STOCK.lock().unwrap().iter().find(is_new).cloned();
    if let Some(secret) = &found {
        put(secret, host.scratch(), &pool);
        USED.with_borrow_mut(|used| used.insert(secret.grip.clone()));
    }
    let made = make();
    // It is empty, unless the host did not use the secret key.
    let _ = fs::remove_dir(pool);
    if let (None, Some(secret)) = (found, secret_of(&host.home(name_email))) {
        USED.with_borrow_mut(|used| used.insert(secret.grip.clone()));
        let mut stock = STOCK.lock().unwrap();
        if stock.len() < MOST {
            stock.push(secret);
        }
    }
    made
}

/// Moves a secret key into the directory of a pool, as a whole.
fn put(secret: &Secret, scratch: &Path, pool: &Path) {
    let directory =
        |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path).unwrap();
    let entry = scratch.join("secret");
    let keys = entry.join("private-keys-v1.d");
    directory(&keys);
    for (path, content) in [
        (keys.join(format!("{}.key", secret.grip)), &secret.key),
        (entry.join("passphrase"), &secret.passphrase),
    ] {
        File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .unwrap()
            .write_all(content)
            .unwrap();
    }
    directory(pool);
    fs::rename(&entry, pool.join(&secret.grip)).unwrap();
}

/// Returns the secret key of a home that was just made.
fn secret_of(home: &Path) -> Option<Secret> {
    let keys = fs::read_dir(home.join("private-keys-v1.d")).ok()?;
    let [file] = <[_; 1]>::try_from(keys.collect::<Result<Vec<_>, _>>().ok()?).ok()?;
    let grip = file.file_name().to_str()?.strip_suffix(".key")?.to_owned();
    let passphrase = fs::read(home.join("passphrase")).ok()?;
    Some(Secret { grip, key: fs::read(file.path()).ok()?, passphrase })
}
