//! What obs-signd sees of the keys. All of it is derived from `keys/`. `gnupg/` is the home of the one agent
//! that signs, with a link to every secret key. `phrases/` has a link to every passphrase, or `phrases_dir` has
//! a file with it. signd takes each phrase for a user who can sign, so phrases are always made last.

use std::fs;
use std::path::{Path, PathBuf};

use gpg::Keygrip;
use gpg::agent::AgentOption;

use crate::error::{Error, Result};
use crate::files::{durable, entries, remove_dangling, remove_file};
use crate::home::Homes;
use crate::identity::NameEmail;
use crate::layout::{KEYS, PASSPHRASE, PHRASES, PUBRING, SECRET_KEY_LINKS, SECRET_KEYS};
use crate::options::Options;
use crate::remedy;
use crate::secrets::passphrase::{self, Form, Passphrases};
use crate::state::old_keyring;
use crate::view::agent_home::{AgentHome, Configuration};
use crate::view::phrase_files::PhraseFiles;
use crate::view::slot::{Occupant, Slot};

/// `gnupg/`, and `phrases/` or `phrases_dir`.
#[derive(Debug)]
pub struct SigndView {
    agent_home: AgentHome,
    secret_keys: PathBuf,
    phrases: PathBuf,
    /// The phrases, if they are files and not links.
    files: Option<PhraseFiles>,
    /// Tells whether passphrases are sealed. A link to a sealed one is of no use, as signd cannot read it.
    passphrases: Option<Passphrases>,
}

impl SigndView {
    /// Returns the view of the state directory `root`, with phrases as links.
    pub fn new(root: &Path) -> Self {
        Self {
            agent_home: AgentHome::of(root),
            secret_keys: root.join(SECRET_KEY_LINKS),
            phrases: root.join(PHRASES),
            files: None,
            passphrases: None,
        }
    }

    /// Returns the view that `options` describe: phrases are files if `phrases_dir` is set, and links
    /// otherwise.
    pub fn of(options: &Options, passphrases: &Passphrases) -> Self {
        let root = &options.state_dir;
        let files = options.phrases_dir.as_ref().map(|directory| {
            PhraseFiles::new(directory.clone(), Homes::new(root), passphrases.clone())
        });
        Self { files, passphrases: Some(passphrases.clone()), ..Self::new(root) }
    }

    /// Returns this view with other directories, for work beside those of the old service. The agent's home is
    /// in `directory`, and the links to passphrases are in `phrases`.
    pub fn beside(self, directory: &Path, phrases: PathBuf) -> Self {
        Self { phrases, files: self.files, passphrases: self.passphrases, ..Self::new(directory) }
    }

    /// Whether the agent's home has all its files with the required content.
    pub fn is_prepared(&self) -> bool {
        matches!(self.agent_home.configuration(), Configuration::Whole) && self.has_marker()
    }

    /// Makes the missing files of the agent's home, and updates what an older version wrote. `scratch` is an
    /// empty directory that nobody else uses.
    pub fn prepare(&self, scratch: &Path) -> Result<()> {
        let added = self.agent_home.update(scratch)?;
        let path = self.agent_home.configuration_path();
        if !added.is_empty() {
            log::warn!(
                "{}: added {}, which an agent needs that signs for many clients; the one that runs reads it \
                 only when it is started anew: restart signd",
                path.display(),
                lines(added)
            );
        }
        if let Configuration::Foreign(what, missing) = self.agent_home.configuration() {
            log::warn!(
                "{}: {what}, so it was left alone; the agent that signs needs these lines in it: {}",
                path.display(),
                lines(missing)
            );
        }
        if !self.has_marker() {
            self.mark_changed(scratch);
        }
        Ok(())
    }

    /// Tells signd that a key was made, changed or removed, by replacing `gnupg/pubring.kbx`. signd's keycache
    /// is valid as long as the mtime, size and inode of that file stay the same. The file itself is empty,
    /// since the keyrings are in `keys/`.
    pub fn mark_changed(&self, scratch: &Path) {
        let fresh = scratch.join(PUBRING);
        let marker = self.marker();
        let may_go = |path: &Path| old_keyring::holds_keys(path).is_ok_and(|holds| !holds);
        let marked =
            fs::write(&fresh, "").and_then(|()| durable::exchange(&fresh, &marker, may_go));
        let why = match marked {
            Ok(true) => return,
            Ok(false) => "it holds keys of another service".to_owned(),
            Err(e) => e.to_string(),
        };
        log::warn!(
            "{}: signd could not be told of a changed key: {why}; restart signd if it uses a keycache",
            marker.display()
        );
    }

    /// Fails if the agent's home belongs to another service, which keeps keys in it. Nothing may be made there
    /// before these keys have been taken over.
    pub fn check_is_ours(&self) -> Result<()> {
        let gnupg = self.agent_home.path();
        let Some(path) = old_keyring::find(gnupg)? else { return Ok(()) };
        let state = gnupg.parent().unwrap_or(gnupg);
        Err(Error::OldKeyring { path, remedy: remedy::command(state, "import") })
    }

    /// Returns files in the agent's home that keep signd from signing or change what it signs, each with the
    /// reason.
    pub fn misleading_files(&self) -> Vec<(PathBuf, &'static str)> {
        let mut found = Vec::new();
        // A home that cannot be read is reported elsewhere.
        for path in entries(self.agent_home.path()).unwrap_or_default() {
            if is_configuration_of_gpg(&path) && path.exists() {
                found.push((path, "changes how everything is signed; nothing of ours writes it"));
            }
        }
        let path = self.agent_home.configuration_path();
        if self.agent_home.says("no-allow-loopback-pinentry") {
            found.push((path, "keeps signd from giving passphrases: no-allow-loopback-pinentry"));
        }
        found
    }

    /// The home of the agent that signs.
    pub fn agent_home(&self) -> &AgentHome {
        &self.agent_home
    }

    fn marker(&self) -> PathBuf {
        self.agent_home.path().join(PUBRING)
    }

    /// Whether the file exists by which signd notices changed keys.
    pub fn has_marker(&self) -> bool {
        self.marker().exists()
    }

    /// The directory with the links to secret keys.
    pub fn secret_keys(&self) -> &Path {
        &self.secret_keys
    }

    /// The directory in which signd finds passphrases.
    pub fn phrases(&self) -> &Path {
        self.files.as_ref().map_or(&self.phrases, PhraseFiles::directory)
    }

    /// The phrases, if they are files and not links.
    pub fn phrase_files(&self) -> Option<&PhraseFiles> {
        self.files.as_ref()
    }

    /// Fails if phrases are files and their directory holds files that do not belong to this state.
    pub fn check_phrases_are_ours(&self) -> Result<()> {
        self.files.as_ref().map_or(Ok(false), PhraseFiles::is_claimed).map(drop)
    }

    /// Removes links from `phrases/` when phrases are files, since signd no longer reads them. A link stays
    /// while `phrases_dir` lacks the phrase of its key. Returns the number of links removed.
    pub fn remove_old_phrases(&self) -> Result<usize> {
        let Some(files) = &self.files else { return Ok(0) };
        let mut count = 0;
        for path in entries(&self.phrases)? {
            let is_ours = fs::read_link(&path).is_ok_and(|to| to.starts_with("../keys"));
            let name = path.file_name().and_then(|name| NameEmail::parse(name.to_str()?).ok());
            // A dangling link belongs to no key, so no phrase file is expected.
            let is_found = name.is_none_or(|name| files.is_current(&name)) || !path.exists();
            if is_ours && is_found {
                remove_file(&path)?;
                count += 1;
            }
        }
        durable::sync(&self.phrases)?;
        Ok(count)
    }

    /// The directory with the links to passphrases, which a disk keeps. `None` if phrases are files in memory.
    pub fn phrase_links(&self) -> Option<&Path> {
        self.files.is_none().then_some(&self.phrases)
    }

    /// Links the secret key, durably: a phrase must not survive a power cut that its key's link did not.
    /// Returns `false` if the link was there already; it may not be on the disk yet.
    pub fn add_secret_key(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<bool> {
        let is_new = self.secret_key_slot(name_email, keygrip).fill()?;
        if is_new {
            durable::sync(&self.secret_keys)?;
        }
        Ok(is_new)
    }

    /// Links the passphrase, or writes its file, after which signd knows the key. Returns `true` if there is a
    /// new link, which is not on the disk yet.
    pub fn add_phrase(&self, name_email: &NameEmail) -> Result<bool> {
        let slot = self.phrase_slot(name_email);
        if self.files.is_some() {
            return slot.fill();
        }
        if slot.is_ours() {
            return Ok(false);
        }
        if let Some(passphrases) = &self.passphrases {
            if passphrases.marker()?.is_some() {
                return Ok(false); // signd reads a phrases_dir that this process does not know
            }
        }
        let home = self.phrases.join("../keys").join(name_email.as_str());
        if matches!(passphrase::form_in(&home), Ok(Form::Sealed)) {
            return Err(Error::Settings(format!(
                "the passphrase of {name_email} is sealed, and sealing.json, which says so of the state, is \
                 missing: put it back from a backup, or run `copr-keygen seal` with the passphrase-key it \
                 was sealed with (docs/sealing.md)"
            )));
        }
        slot.fill()
    }

    /// Fails if signd cannot be given this key. Either a file that must be kept stands in place of a link, or
    /// the secret key belongs to another identity. Called before a key is published.
    pub fn check_is_free(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<()> {
        self.check_phrase_is_free(name_email)?;
        let slot = self.secret_key_slot(name_email, keygrip);
        slot.check()?;
        match slot.look() {
            Ok(Occupant::Link(target)) if slot.path().exists() => Err(Error::Refused(format!(
                "its secret key {keygrip} is in use as {}, and cannot be of two identities",
                target.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Like [`SigndView::check_is_free`], as far as it can be decided before there is a key.
    pub fn check_phrase_is_free(&self, name_email: &NameEmail) -> Result<()> {
        self.phrase_slot(name_email).check()
    }

    /// Takes a key away from signd, durably: first the phrase, which makes the user, then the secret key. A
    /// file that stands in place of a link may be somebody's only copy, so it is moved to `aside`.
    pub fn remove(&self, name_email: &NameEmail, keygrip: &Keygrip, aside: &Path) -> Result<()> {
        let secret_key = self.secret_key_slot(name_email, keygrip);
        self.phrase_slot(name_email).clear(&aside.join("phrase"))?;
        if let Some(links) = self.phrase_links() {
            durable::sync(links)?;
        }
        match secret_key.look() {
            Ok(Occupant::Link(target)) if secret_key.path().exists() => {
                let link = secret_key.path().display();
                log::warn!("{link}: leads to {}, left alone", target.display());
            }
            _ => secret_key.clear(&aside.join(keygrip.file_name()))?,
        }
        durable::sync(&self.secret_keys)
    }

    /// Removes the link to a passphrase, or the file with it, if that passphrase is not in `keys/`.
    pub fn remove_dangling_phrase(&self, name_email: &NameEmail) {
        self.phrase_slot(name_email).remove_dangling();
    }

    /// Removes the link to a secret key that was never published or has gone.
    pub fn remove_dangling_secret_key(&self, keygrip: &Keygrip) {
        remove_dangling(&self.secret_keys.join(keygrip.file_name()));
    }

    /// Returns the slot of the link to a secret key.
    pub fn secret_key_slot(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Slot<'static> {
        let path = self.secret_keys.join(keygrip.file_name());
        let target = format!("../../{KEYS}/{name_email}/{SECRET_KEYS}/{}", keygrip.file_name());
        Slot::of_link(path, target.into(), None)
    }

    /// Returns the slot of the passphrase file or of the link to the passphrase.
    pub fn phrase_slot<'a>(&'a self, name_email: &'a NameEmail) -> Slot<'a> {
        if let Some(files) = &self.files {
            return Slot::of_phrase_file(files, name_email);
        }
        let target = PathBuf::from(format!("../{KEYS}/{name_email}/{PASSPHRASE}"));
        let original = self.phrases.join(&target);
        Slot::of_link(self.phrases.join(name_email.as_str()), target, Some(original))
    }
}

/// Whether gpg reads a file of this name as its configuration: `gpg.conf`, or a file for one version that takes
/// its place, like `gpg.conf-2.2`.
fn is_configuration_of_gpg(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    matches!(name.strip_prefix(b"gpg.conf"), Some([] | [b'-', b'0'..=b'9', ..]))
}

fn lines(options: Vec<AgentOption>) -> String {
    let lines: Vec<_> = options.into_iter().map(AgentOption::line).collect();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn a_link_that_others_make_and_remove_meanwhile_is_no_failure() -> Result<()> {
        let root = scratch();
        assert!(fs::create_dir_all(root.path().join(SECRET_KEY_LINKS)).is_ok());
        let signd = SigndView::new(root.path());
        let name = NameEmail::parse("a#b@c")?;
        let digits = "0123456789ABCDEF0123456789ABCDEF01234567";
        let Some(keygrip) = Keygrip::parse(digits) else { unreachable!("it is one") };
        let done = AtomicBool::new(false);
        let failed = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        signd.remove_dangling_secret_key(&keygrip); // the link always dangles here
                    }
                });
            }
            let put = || (0..20_000).find_map(|_| signd.add_secret_key(&name, &keygrip).err());
            let makers: Vec<_> = (0..3).map(|_| scope.spawn(put)).collect();
            let failed: Vec<_> =
                makers.into_iter().filter_map(|maker| maker.join().ok().flatten()).collect();
            done.store(true, Ordering::Relaxed);
            failed
        });
        assert!(failed.is_empty(), "{failed:?}");
        Ok(())
    }
}
