//! `copr-keygen seal`, `unseal` and `phrases`: encrypt the passphrases of a state under a key that is kept
//! elsewhere, decrypt them again, and write the passphrases that signd reads.

use keystore::{CREDENTIAL, Conversion, Form, Passphrases, Store, Talk, interrupt};
use serde_json::json;

use super::{output, progress, state};
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
    let store = state::open(settings)?;
    if options.dry_run {
        store.would_have_phrases_in_memory()?;
    } else {
        store.check_phrases_in_memory()?;
        // Write the phrases for signd first, so that it goes on once its links lead to
        // sealed files that it cannot read. A key whose phrase cannot be read has been
        // reported, and does not keep the others from being sealed.
        match provide(&store) {
            Err(Error::Partly(_)) => {}
            provided => provided?,
        }
    }
    convert(settings, &store, Form::Sealed, options)
}

/// Unseals all passphrases.
pub fn unseal(settings: &Settings, options: &Seal) -> Result<()> {
    let store = state::open(settings)?;
    // With a key, go on even without sealing.json: a backup of keys/ alone brings back sealed passphrases.
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
        let jobs = *settings.jobs.get()?;
        progress::with_bar(word(to), |progress| {
            let shown = |done, total| progress.at(done, total);
            let talk = Talk { progress: &shown, stop: &|| interrupt::signal().is_some() };
            store.convert(to, jobs, &talk)
        })?
    };
    if to == Form::Sealed && !options.dry_run && !done.stopped {
        store.remove_old_phrases()?;
    }
    report(to, &done, options)
}

fn word(to: Form) -> &'static str {
    if to == Form::Sealed { "sealed" } else { "unsealed" }
}

fn report(to: Form, done: &Conversion, options: &Seal) -> Result<()> {
    let what = word(to);
    let passphrases = |count| output::number(count, "passphrase", "passphrases");
    let (converted, all) = (passphrases(done.converted), done.passphrases);
    let mut object = output::value(done)?;
    object["dry_run"] = json!(options.dry_run);
    let text = match options.dry_run {
        true => format!("{converted} of {all} would be {what}; nothing was changed\n"),
        false => format!("{converted} {what} now, {} of {all} are\n", all - done.failed.min(all)),
    };
    output::report(options.json, &object, &text)?;
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
    state::all_done(done.failed == 0, || {
        format!(
            "{} could not be {what}, see above; all others are; mend these, then run it again",
            passphrases(done.failed)
        )
    })
}

/// Writes the phrase of every key where signd reads it.
pub fn phrases(settings: &Settings, _options: &Phrases) -> Result<()> {
    let store = state::open(settings)?;
    store.prepare_phrases()?;
    provide(&store)
}

fn provide(store: &Store) -> Result<()> {
    let _work = interrupt::work();
    let provided = progress::with_count("given to signd", |progress| {
        store.provide_phrases(&|| progress.one())
    })?;
    log::info!(
        "signd finds the phrases of {} in {}; removed {} of no key",
        output::keys(provided.keys),
        store.phrases_directory().display(),
        output::number(provided.removed, "phrase", "phrases")
    );
    state::all_done(provided.failed == 0, || {
        format!(
            "the phrases of {} cannot be read, see above; nothing can be signed with them",
            output::keys(provided.failed)
        )
    })
}
