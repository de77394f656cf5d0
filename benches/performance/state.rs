//! State directories, and the shelf of secret keys that are lent to their pools. After a measurement, the key
//! goes back to the shelf, so that a few keys are enough.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::service;

/// A state directory.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    /// Opens the state directory `path`, creating it if it is missing. Removes what an
    /// earlier run may have left.
    pub fn open(path: &Path) -> Result<Self> {
        for part in ["keys", "gnupg/private-keys-v1.d", "phrases", "pool", "staging"] {
            private_directory(&path.join(part))?;
        }
        let state = Self(path.into());
        for entry in fs::read_dir(path.join("keys"))? {
            let name = entry?.file_name().into_string().map_err(|_| "a strange name in keys/")?;
            if name.starts_with("run") {
                state.forget(&name)?;
            }
        }
        for bits in [2048, 3072, 4096] {
            let pool = state.pool(bits);
            if pool.exists() {
                fs::remove_dir_all(&pool)?;
            }
            private_directory(&pool)?;
        }
        Ok(state)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn home(&self, name_email: &str) -> PathBuf {
        self.0.join("keys").join(name_email)
    }

    pub fn pool(&self, bits: u16) -> PathBuf {
        self.0.join(format!("pool/rsa{bits}"))
    }

    /// Removes a key. Its home goes last.
    pub fn forget(&self, name_email: &str) -> Result<()> {
        self.unlink(name_email)?;
        fs::remove_dir_all(self.home(name_email))?;
        self.settle()
    }

    fn unlink(&self, name_email: &str) -> Result<()> {
        let gone = |path: PathBuf| match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        gone(self.0.join("phrases").join(name_email))?;
        // The directory may be gone, if an earlier run was ended in the middle of this.
        let keys = fs::read_dir(self.home(name_email).join("private-keys-v1.d"));
        for key in keys.into_iter().flatten().flatten() {
            gone(self.0.join("gnupg/private-keys-v1.d").join(key.file_name()))?;
        }
        Ok(())
    }

    /// Makes the file system write its journal now rather than during the next measurement.
    fn settle(&self) -> Result<()> {
        Ok(File::open(self.0.join("keys"))?.sync_all()?)
    }
}

/// A state directory whose pool holds the secret keys to lend.
#[derive(Debug)]
pub struct Shelf(State);

impl Shelf {
    /// Opens the shelf and has `fill-pool` fill it up to `count` keys of each length.
    pub fn open(path: &Path, count: usize) -> Result<Self> {
        for part in ["keys", "gnupg/private-keys-v1.d", "phrases", "pool", "staging"] {
            private_directory(&path.join(part))?;
        }
        let state = State(path.into());
        let stock = format!("2048:{count} 3072:{count} 4096:{count}");
        service::stdout_of(service::mode(&state, ["fill-pool"]).env("COPR_KEYGEN_POOL", stock))?;
        Ok(Self(state))
    }

    /// Moves a key into the pool of `state`.
    pub fn lend(&self, state: &State, bits: u16) -> Result<()> {
        let entry = self.any(bits)?;
        let name = entry.file_name().unwrap_or_default();
        fs::rename(&entry, state.pool(bits).join(name))?;
        state.settle()
    }

    /// Returns the pool directory of some secret key and its passphrase. The directory is
    /// named after the keygrip.
    pub fn any(&self, bits: u16) -> Result<PathBuf> {
        let entry = fs::read_dir(self.0.pool(bits))?.next().ok_or("the shelf is empty")?;
        Ok(entry?.path())
    }

    /// Takes back the secret key that became the key of `name_email`. Fails if the key
    /// did not come from the pool.
    pub fn take_back(&self, state: &State, name_email: &str, bits: u16) -> Result<()> {
        if fs::read_dir(state.pool(bits))?.next().is_some() {
            return Err("the key of the pool was not taken".into());
        }
        state.unlink(name_email)?;
        let home = state.home(name_email);
        let secret =
            fs::read_dir(home.join("private-keys-v1.d"))?.next().ok_or("no secret key")??;
        let file = secret.file_name().into_string().map_err(|_| "a strange name")?;
        for part in ["pubring.kbx", "key.json"] {
            fs::remove_file(home.join(part))?;
        }
        fs::remove_dir_all(home.join("openpgp-revocs.d"))?;
        fs::rename(&home, self.0.pool(bits).join(file.trim_end_matches(".key")))?;
        state.settle()
    }
}

/// Creates a directory and those above it, with mode 0700.
pub fn private_directory(path: &Path) -> Result<()> {
    Ok(DirBuilder::new().recursive(true).mode(0o700).create(path)?)
}

/// A source of names for the identities that measurements make.
#[derive(Debug, Default)]
pub struct Names(Cell<u64>);

impl Names {
    pub fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("run{}#project@copr.example.org", self.0.get())
    }
}
