//! The old way: bare gpg on one keyring that all keys share, made of the certificates of the largest state.
//! This flatters it a little: its trust database is never checked, and only a few of its keys have secret keys.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bare::{self, Scratch};
use crate::samples::{Contender, Figure, alternate, timed};
use crate::service::get;
use crate::{Bench, Result, Site, identities, keybox};

const SIZES: [usize; 3] = [1_000, 10_000, 50_000];
const ROUNDS: usize = 7;
/// The number of keys in the largest keyring that is listed as a whole.
const LIST_MAX: usize = 10_000;
/// The number of keys that have secret keys; their certificates are in the middle of the keyring.
const OWN: usize = 8;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let homes = Home::open_all(bench, sites)?;
    let mut contenders = Vec::new();
    for home in &homes {
        let keys = Some(home.size);
        let generate = || {
            home.changing(|| {
                bare::quiet(home.gpg().arg("--gen-key"), bare::unprotected("new").as_bytes())
            })
        };
        contenders.push(Contender::new("old/generate", keys, "ms", generate));
        let prolong = || {
            home.changing(|| {
                bare::quiet(home.gpg().args(["--quick-set-expire", home.any_own()?, "5y"]), b"")
            })
        };
        contenders.push(Contender::new("old/prolong", keys, "ms", prolong));
        let find = || {
            let name = format!("<{}>", identities::name_email(rand::random_range(0..home.size)));
            timed(|| bare::quiet(home.gpg().args(["--with-colons", "--list-keys", &name]), b""))
        };
        contenders.push(Contender::new("old/find", keys, "ms", find));
        let export = || {
            let name = format!("<{}>", identities::name_email(rand::random_range(0..home.size)));
            timed(|| bare::quiet(home.gpg().args(["--armor", "--export", &name]), b""))
        };
        contenders.push(Contender::new("old/export", keys, "ms", export));
        // gpg verifies every self-signature as it lists the keyring, which takes a minute for the largest.
        if home.size <= LIST_MAX {
            let list = ["--with-colons", "--list-keys"];
            let list = move || timed(|| bare::quiet(home.gpg().args(list), b""));
            contenders.push(Contender::new("old/list", keys, "ms", list));
        }
    }
    for site in sites.iter().filter(|site| site.size > 0) {
        let export = || {
            let name = identities::name_email(rand::random_range(0..site.size)).replace('#', "%23");
            timed(|| site.service.expect(&get(&format!("/keys/{name}/pubkey")), 200))
        };
        contenders.push(Contender::new("pubkey", Some(site.size), "ms", export));
    }
    if contenders.is_empty() {
        return Ok(Vec::new());
    }
    alternate("the old way", bench.options.rounds(ROUNDS), contenders)
}

/// A GnuPG home that many keys share. When dropped, its agent is ended.
#[derive(Debug)]
pub struct Home {
    pub size: usize,
    path: PathBuf,
    /// The fingerprints of the keys that have secret keys.
    own: Vec<String>,
}

impl Home {
    /// Opens homes of all sizes for which the largest state has enough certificates.
    pub fn open_all(bench: &Bench, sites: &[Site]) -> Result<Vec<Self>> {
        let Some(largest) = sites.last() else { return Ok(Vec::new()) };
        let sizes = SIZES.into_iter().filter(|size| *size <= largest.size);
        sizes.map(|size| Self::open(bench, largest, size)).collect()
    }

    fn open(bench: &Bench, site: &Site, size: usize) -> Result<Self> {
        let path = bench.options.store.join(format!("old{size}"));
        if !path.join("own").exists() {
            eprintln!("making a keyring of {size} keys");
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            let fresh = Scratch::new(&bench.scratch)?;
            make(site, size, fresh.path())?;
            bare::end_agent(fresh.path());
            fs::rename(fresh.path(), &path)?;
        }
        let own = fs::read_to_string(path.join("own"))?.lines().map(str::to_owned).collect();
        let home = Self { size, path, own };
        home.restore()?;
        Ok(home)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn gpg(&self) -> std::process::Command {
        bare::gpg(&self.path)
    }

    fn any_own(&self) -> Result<&str> {
        let index = rand::random_range(0..self.own.len().max(1));
        Ok(self.own.get(index).ok_or("no key of its own")?)
    }

    /// Times `work`, which changes the keyring, then restores the keyring.
    fn changing(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let took = timed(work)?;
        self.restore()?;
        Ok(took)
    }

    fn restore(&self) -> Result<()> {
        fs::copy(self.path.join("pristine.kbx"), self.path.join("pubring.kbx"))?;
        for leftover in ["pubring.kbx~", "trustdb.gpg"] {
            let _ = fs::remove_file(self.path.join(leftover)); // may not exist
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        bare::end_agent(&self.path);
    }
}

/// Returns the name of a key in the shared keyring that has a secret key.
pub fn own_name(number: usize) -> String {
    format!("old{number}#project@copr.example.org")
}

fn make(site: &Site, size: usize, home: &Path) -> Result<()> {
    fs::write(home.join("gpg-agent.conf"), "disable-scdaemon\n")?;
    let blocks: String = (0..OWN).map(|n| bare::unprotected(&format!("old{n}"))).collect();
    bare::quiet(bare::gpg(home).arg("--gen-key"), blocks.as_bytes())?;
    let listing = bare::run(bare::gpg(home).args(["--with-colons", "--list-keys"]), b"")?;
    let listing = String::from_utf8(listing)?;
    let prints = listing.lines().filter(|line| line.starts_with("fpr:"));
    let prints: Vec<_> = prints.filter_map(|line| line.split(':').nth(9)).collect();
    if prints.len() != OWN {
        return Err(format!("{} keys instead of {OWN}", prints.len()).into());
    }

    let own = fs::read(home.join("pubring.kbx"))?;
    let (header, own) = own.split_at_checked(keybox::HEADER).ok_or("a short keybox")?;
    let mut keybox = header.to_vec();
    for number in 0..size {
        if number == size / 2 {
            keybox.extend(own);
        }
        let one = fs::read(site.state.home(&identities::name_email(number)).join("pubring.kbx"))?;
        let (_, blobs) = keybox::split(&one)?;
        keybox.extend(blobs.concat());
    }
    fs::write(home.join("pristine.kbx"), keybox)?;
    fs::create_dir(home.join("phrases"))?;
    for number in 0..OWN {
        fs::write(home.join("phrases").join(own_name(number)), "1\n")?;
    }
    Ok(fs::write(home.join("own"), prints.join("\n"))?)
}
