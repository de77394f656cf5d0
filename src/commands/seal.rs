//! `copr-keygen seal`, `unseal` and `phrases`: encrypts the passphrases of a state under a key that is
//! elsewhere, takes that back, and gives signd what it reads.

use keystore::{CREDENTIAL, Conversion, Form, Passphrases, Store, Talk, interrupt};
use serde_json::json;

use super::{output, progress};
use crate::cli::{Phrases, Seal};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Seals all passphrases.
pub fn seal(settings: &Settings, options: &Seal) -> Result<()> {
    let key = settings.sealing_key.as_ref();
    key.ok_or_else(|| {
        Error::Settings(format!(
            "there is no {CREDENTIAL} to seal with: make one with systemd-creds encrypt, or set \
             passphrase_key_file (docs/sealing.md); nothing was changed"
        ))
    })?;
    if settings.phrases_dir.get()?.is_none() {
        return Err(keystore::needs_phrases_dir());
    }
    let store = open(settings)?;
    if options.dry_run {
        store.would_have_phrases_in_memory()?;
    } else {
        store.check_phrases_in_memory()?;
        // signd can go on while its links lead to what it cannot read any more. A key whose phrase cannot
        // be read has been named, and keeps no other from being sealed.
        match provide(&store) {
            Err(Error::Partly(_)) => {}
            provided => provided?,
        }
    }
    convert(settings, &store, Form::Sealed, options)
}

/// Unseals all passphrases.
pub fn unseal(settings: &Settings, options: &Seal) -> Result<()> {
    let store = open(settings)?;
    // Without a marker there may still be sealed ones, from a backup of keys/ alone.
    if settings.sealing_key.is_none() && Passphrases::new(&settings.keystore()?).marker()?.is_none()
    {
        return report(Form::Clear, &Conversion::default(), options);
    }
    convert(settings, &store, Form::Clear, options)
}

fn convert(settings: &Settings, store: &Store, to: Form, options: &Seal) -> Result<()> {
    let done = if options.dry_run {
        store.count_passphrases(to)?
    } else {
        let _work = interrupt::work();
        let bar = progress::bar(0, if to == Form::Sealed { "sealed" } else { "unsealed" });
        let shown = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let talk = Talk { progress: &shown, stop: &|| interrupt::signal().is_some() };
        let done = store.convert(to, *settings.jobs.get()?, &talk);
        bar.finish_and_clear();
        done?
    };
    if to == Form::Sealed && !options.dry_run && !done.stopped {
        store.remove_old_phrases()?;
    }
    report(to, &done, options)
}

fn report(to: Form, done: &Conversion, options: &Seal) -> Result<()> {
    let what = if to == Form::Sealed { "sealed" } else { "unsealed" };
    if options.json {
        let mut object = json!(done);
        object["dry_run"] = json!(options.dry_run);
        output::json(&object)?;
    } else if options.dry_run {
        output::print(&format!(
            "{} of {} passphrases would be {what}; nothing was changed\n",
            done.converted, done.passphrases
        ))?;
    } else {
        output::print(&format!(
            "{} passphrases {what} now, {} of {} are\n",
            done.converted,
            done.passphrases - done.failed.min(done.passphrases),
            done.passphrases
        ))?;
    }
    if done.stopped {
        interrupt::check(|| {
            "every passphrase can be read as before; run it again to go on".into()
        })?;
    }
    if done.copies > 0 {
        let copies = output::number(done.copies, "copy", "copies");
        return Err(Error::Partly(format!(
            "there are passphrases in the clear still: {copies}, see above; remove them, then run it again"
        )));
    }
    match done.failed {
        0 => Ok(()),
        failed => Err(Error::Partly(format!(
            "{failed} passphrases could not be {what}, see above; all others are; mend these, then \
             run it again"
        ))),
    }
}

/// Gives signd the phrase of every key.
pub fn phrases(settings: &Settings, _options: &Phrases) -> Result<()> {
    let store = open(settings)?;
    store.prepare_phrases()?;
    provide(&store)
}

fn provide(store: &Store) -> Result<()> {
    let bar = progress::count("given to signd");
    let _work = interrupt::work();
    let provided = store.provide_phrases(&|| bar.inc(1));
    bar.finish_and_clear();
    let provided = provided?;
    log::info!(
        "signd finds the phrases of {} keys in {}; {} of no key were removed",
        provided.keys,
        store.phrases_directory().display(),
        provided.removed
    );
    match provided.failed {
        0 => Ok(()),
        count => Err(Error::Partly(format!(
            "the phrases of {count} keys cannot be read, see above; nothing can be signed with those"
        ))),
    }
}

fn open(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, settings.gnupg()?)
}
