//! What obs-signd sees of the keys, all of it derived: `gnupg/` is the home of the one agent that
//! signs, with a link to every secret key; `phrases/` has a link to every passphrase, or `phrases_dir` a
//! file with it. signd takes each of those for a user who can sign, so they are always made last.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::durable;
use super::home::Homes;
use super::passphrase::{self, Form, Passphrases};
use super::phrases::PhraseFiles;
use crate::error::{Error, Result};
use crate::gpg::Keygrip;
use crate::identity::NameEmail;
use crate::settings::Settings;

/// Configuration of the shared agent. signd answers its questions for passphrases itself
/// (loopback), with every signature, so the agent need not remember any. A passphrase of 256 random
/// bits needs no stretching.
const AGENT_CONFIGURATION: &str = "\
# Written by copr-keygen when it is missing.
allow-loopback-pinentry
s2k-count 65536
default-cache-ttl 0
max-cache-ttl 0
disable-scdaemon
extra-socket none
browser-socket none
";

/// `gnupg/`, and `phrases/` or what stands for it.
#[derive(Debug)]
pub struct SigndView {
    agent_home: PathBuf,
    secret_keys: PathBuf,
    phrases: PathBuf,
    /// The phrases as files, in place of links.
    files: Option<PhraseFiles>,
    /// Says whether phrases are sealed, so that a link would lead signd to what it cannot read.
    passphrases: Option<Passphrases>,
}

impl SigndView {
    /// The links of the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            agent_home: root.join("gnupg"),
            secret_keys: root.join("gnupg/private-keys-v1.d"),
            phrases: root.join("phrases"),
            files: None,
            passphrases: None,
        }
    }

    /// What signd sees according to `settings`: files with phrases, where those name a directory.
    pub fn of(settings: &Settings, passphrases: &Passphrases) -> Self {
        let root = &settings.state_dir;
        let files = settings.phrases_dir.as_ref().map(|directory| {
            PhraseFiles::new(directory.clone(), Homes::new(root), passphrases.clone())
        });
        Self { files, passphrases: Some(passphrases.clone()), ..Self::new(root) }
    }

    /// Whether the agent's home has its files.
    pub fn is_prepared(&self) -> bool {
        self.agent_configuration().exists() && self.marker().exists()
    }

    /// Makes the files of the agent's home that are missing; `scratch` is an empty directory that
    /// nobody else uses.
    pub fn prepare(&self, scratch: &Path) -> Result<()> {
        let path = self.agent_configuration();
        if !path.exists() {
            let fresh = scratch.join("gpg-agent.conf");
            let failed = |e| Error::io(format!("writing {}", path.display()), e);
            fs::write(&fresh, AGENT_CONFIGURATION).map_err(failed)?;
            durable::sync(&fresh)?;
            fs::rename(&fresh, &path).map_err(failed)?;
        }
        if !self.marker().exists() {
            self.mark_changed(scratch);
        }
        Ok(())
    }

    /// Tells signd that a key was made, changed or removed: its keycache holds as long as mtime,
    /// size and inode of `pubring.kbx` stay. The file itself is empty, keyrings are in `keys/`.
    pub fn mark_changed(&self, scratch: &Path) {
        let fresh = scratch.join("pubring.kbx");
        if let Err(e) = fs::write(&fresh, "").and_then(|()| fs::rename(&fresh, self.marker())) {
            log::warn!(
                "{}: signd could not be told of a changed key: {e}; restart signd if it uses a \
                 keycache",
                self.marker().display()
            );
        }
    }

    /// Files in the agent's home that keep signd from signing, or change what is signed, and why.
    pub fn misled(&self) -> Vec<(PathBuf, &'static str)> {
        let mut found = Vec::new();
        let conf = self.agent_home.join("gpg.conf");
        if conf.exists() {
            found.push((conf, "changes how everything is signed; nothing of ours writes it"));
        }
        let path = self.agent_configuration();
        let text = fs::read(&path).unwrap_or_default();
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if lines.any(|line| line.starts_with(b"no-allow-loopback-pinentry")) {
            found.push((path, "keeps signd from giving passphrases: no-allow-loopback-pinentry"));
        }
        found
    }

    fn agent_configuration(&self) -> PathBuf {
        self.agent_home.join("gpg-agent.conf")
    }

    fn marker(&self) -> PathBuf {
        self.agent_home.join("pubring.kbx")
    }

    /// Where the links to secret keys are.
    pub fn secret_keys(&self) -> &Path {
        &self.secret_keys
    }

    /// Where signd finds passphrases.
    pub fn phrases(&self) -> &Path {
        self.files.as_ref().map_or(&self.phrases, PhraseFiles::directory)
    }

    /// The phrases, where they are files and no links.
    pub fn phrase_files(&self) -> Option<&PhraseFiles> {
        self.files.as_ref()
    }

    /// Removes the links of `phrases/` that signd does not read where phrases are files, of keys whose
    /// phrase it finds; returns how many.
    pub fn remove_old_phrases(&self) -> Result<usize> {
        let Some(files) = &self.files else { return Ok(0) };
        let failed = |e| Error::io(format!("clearing {}", self.phrases.display()), e);
        let mut count = 0;
        for entry in fs::read_dir(&self.phrases).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_ours = fs::read_link(&path).is_ok_and(|to| to.starts_with("../keys"));
            let name = path.file_name().and_then(|name| NameEmail::parse(name.to_str()?).ok());
            // One that leads nowhere has no key, and no phrase.
            let is_found = name.is_none_or(|name| files.is_current(&name)) || !path.exists();
            if is_ours && is_found {
                fs::remove_file(&path).map_err(failed)?;
                count += 1;
            }
        }
        durable::sync(&self.phrases)?;
        Ok(count)
    }

    /// What the link to a secret key says.
    pub fn secret_key_target(name_email: &NameEmail, keygrip: &Keygrip) -> PathBuf {
        format!("../../keys/{name_email}/private-keys-v1.d/{}", keygrip.file_name()).into()
    }

    /// What the link to a passphrase says.
    pub fn phrase_target(name_email: &NameEmail) -> PathBuf {
        format!("../keys/{name_email}/passphrase").into()
    }

    /// Where links to passphrases are that a disk keeps; `None` where phrases are files in memory.
    pub fn phrase_links(&self) -> Option<&Path> {
        self.files.is_none().then_some(&self.phrases)
    }

    /// Links the secret key, durably: a phrase must not survive a power cut that its key's link
    /// did not. `false` when the link was there; then it may not be on the disk yet.
    pub fn add_secret_key(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<bool> {
        let is_new =
            self.put(&self.secret_key(keygrip), &Self::secret_key_target(name_email, keygrip))?;
        if is_new {
            durable::sync(&self.secret_keys)?;
        }
        Ok(is_new)
    }

    /// Links the passphrase, or writes it to its file; from here on signd knows the key. `true` when
    /// there is a new link, which is not on the disk yet.
    pub fn add_phrase(&self, name_email: &NameEmail) -> Result<bool> {
        if let Some(files) = &self.files {
            return files.add(name_email).map(|()| false);
        }
        if let Some(passphrases) = &self.passphrases {
            if passphrases.marker()?.is_some() {
                return Ok(false); // signd reads elsewhere, where this process does not know
            }
        }
        let (link, target) =
            (self.phrases.join(name_email.as_str()), Self::phrase_target(name_email));
        if leads_to(&link, &target) {
            return Ok(false);
        }
        let home = self.phrases.join("../keys").join(name_email.as_str());
        if matches!(passphrase::form_in(&home), Ok(Form::Sealed)) {
            return Err(Error::Settings(format!(
                "the passphrase of {name_email} is sealed, and sealing.json, which says so of the state, is \
                 missing: put it back from a backup, or run `copr-keygen seal` with the passphrase-key it \
                 was sealed with (docs/sealing.md)"
            )));
        }
        self.put(&link, &target)
    }

    /// Fails when the link of this secret key leads to that of another identity.
    pub fn check_secret_key_is_free(
        &self,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<()> {
        let link = self.secret_key(keygrip);
        match fs::read_link(&link) {
            Ok(target)
                if target != Self::secret_key_target(name_email, keygrip) && link.exists() =>
            {
                Err(Error::Refused(format!(
                    "its secret key {keygrip} is in use as {}, and cannot be of two identities",
                    target.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Takes a key from signd, durably: first the phrase, which makes the user, then the secret key.
    /// What stands in place of a link may be somebody's only copy, so it is moved to `aside`.
    pub fn remove(&self, name_email: &NameEmail, keygrip: &Keygrip, aside: &Path) -> Result<()> {
        match &self.files {
            Some(files) => files.remove(name_email)?,
            None => {
                take_away(&self.phrases.join(name_email.as_str()), &aside.join("phrase"))?;
                durable::sync(&self.phrases)?;
            }
        }
        let link = self.secret_key(keygrip);
        match fs::read_link(&link) {
            Ok(target)
                if target != Self::secret_key_target(name_email, keygrip) && link.exists() =>
            {
                log::warn!("{}: leads to {}, left alone", link.display(), target.display());
            }
            _ => take_away(&link, &aside.join(keygrip.file_name()))?,
        }
        durable::sync(&self.secret_keys)
    }

    /// Removes the link to a passphrase that is not there, or the file with it.
    pub fn remove_dangling_phrase(&self, name_email: &NameEmail) {
        match &self.files {
            Some(files) => files.remove_dangling(name_email),
            None => remove_dangling(&self.phrases.join(name_email.as_str())),
        }
    }

    /// Removes the link to a secret key that was never published, or is not there any more.
    pub fn remove_dangling_secret_key(&self, keygrip: &Keygrip) {
        remove_dangling(&self.secret_key(keygrip));
    }

    fn secret_key(&self, keygrip: &Keygrip) -> PathBuf {
        self.secret_keys.join(keygrip.file_name())
    }

    /// Makes `link` point to `target`; `false` when it already did.
    fn put(&self, link: &Path, target: &Path) -> Result<bool> {
        let failed = |e| Error::io(format!("linking {}", link.display()), e);
        // Another request may make it at any time; then that one is taken.
        let is_there = || leads_to(link, target);
        if is_there() {
            return Ok(false);
        }
        match symlink(target, link) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !is_there() => {
                log::warn!("{}: was not our link to the key, replaced it", link.display());
                match fs::remove_file(link).and_then(|()| symlink(target, link)) {
                    Err(e) if !is_there() => Err(failed(e)),
                    _ => Ok(true),
                }
            }
            Err(e) if !is_there() => Err(failed(e)),
            _ => Ok(true),
        }
    }
}

fn leads_to(link: &Path, target: &Path) -> bool {
    fs::read_link(link).is_ok_and(|found| found == target)
}

/// Removes a link, if it is there; moves anything else to `aside`.
fn take_away(link: &Path, aside: &Path) -> Result<()> {
    let taken = match fs::symlink_metadata(link) {
        Ok(found) if found.is_symlink() => fs::remove_file(link),
        Ok(_) => {
            log::warn!(
                "{}: was not our link to the key, moved it to {}",
                link.display(),
                aside.display()
            );
            fs::rename(link, aside)
        }
        Err(e) => Err(e),
    };
    match taken {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", link.display()), e))
        }
        _ => Ok(()),
    }
}

fn remove_dangling(link: &Path) {
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    if !fs::metadata(link).is_err_and(|e| missing(&e)) {
        return;
    }
    match fs::remove_file(link) {
        Err(e) if !missing(&e) => {
            log::warn!("{}: a link to nothing could not be removed: {e}", link.display());
        }
        _ => {}
    }
}
