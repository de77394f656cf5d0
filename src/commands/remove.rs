//! `copr-keygen remove`, `undo` and `purge`: keys go to the trash, come back from it, or are destroyed. Keys
//! are removed and destroyed only after a confirmation.

use std::collections::HashSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use gpg::clock;
use keystore::{Evidence, NameEmail, interrupt};
use serde_json::json;

use super::{output, state};
use crate::cli::{Purge, Remove, Undo};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Moves keys to the trash. Fails before the first move if one of the keys does not exist.
pub fn remove(settings: &Settings, options: &Remove) -> Result<()> {
    let store = state::open(settings)?;
    // Drop repeated names: after the first removal, a client may have made a new key of the same name.
    let mut seen = HashSet::new();
    let names: Vec<_> = options.names.iter().filter(|name| seen.insert(*name)).cloned().collect();
    for name_email in &names {
        let record = store.catalog().homes().find(name_email)?;
        let record = record.ok_or_else(|| Error::NoKey(name_email.clone()))?;
        log::info!(
            "{name_email}: the key {} goes to the trash, and nothing can be signed with it any more; the \
             next request for a key of this name makes a NEW key. Until it is purged, `copr-keygen undo` \
             brings it back",
            record.fingerprint
        );
    }
    match &names[..] {
        [name] => {
            let question = "Type the name of the key, or y, to remove it: ";
            confirm(options.yes, question, name.as_str())?;
        }
        names => confirm(options.yes, &format!("Type y to remove {} keys: ", names.len()), "y")?,
    }
    let _work = interrupt::work();
    let work = |name_email: &NameEmail| {
        interrupt::check(|| format!("{name_email} and the keys named after it were not removed"))?;
        let removed = store.remove(name_email)?;
        let certificate = removed.revoked_certificate();
        log::info!("{name_email}: removed; it is in {}", removed.entry.display());
        log::info!(
            "nothing was published; if nobody is to trust what it has signed, publish {}",
            certificate.display()
        );
        Ok(json!({
            "name_email": name_email.as_str(),
            "entry": removed.entry.to_string_lossy(),
            "revoked_certificate": certificate.to_string_lossy(),
        }))
    };
    let (removed, failed) = state::each(&names, work)?;
    output::report(options.json, &json!({"removed": removed, "failed": failed}), "")?;
    state::all_named(&failed, &names, "could not be removed")
}

/// Brings a key back from the trash.
pub fn undo(settings: &Settings, options: &Undo) -> Result<()> {
    let store = state::open(settings)?;
    let _work = interrupt::work();
    let (name_email, record) = (&options.name_email, store.undo(&options.name_email)?);
    log::info!("{name_email}: the key {} is back", record.fingerprint);
    let fingerprint = record.fingerprint.as_str();
    let object = json!({"name_email": name_email.as_str(), "fingerprint": fingerprint});
    output::report(options.json, &object, "")
}

/// Destroys keys in the trash.
pub fn purge(settings: &Settings, options: &Purge) -> Result<()> {
    let store = state::open(settings)?;
    match store.finish_purges()? {
        0 => {}
        count => log::info!(
            "finished {} that had been interrupted",
            output::number(count, "purge", "purges")
        ),
    }
    let age = u64::from(options.older_than.seconds());
    let now = if age == 0 { clock::now()? } else { clock::believed()? };
    let doubt = Evidence::of(&settings.state_dir).against_jump(now);
    if let Some(words) = doubt.filter(|_| age > 0) {
        return Err(Error::Gpg(gpg::Error::Clock(format!(
            "nothing was destroyed: {words}; set the clock, then run it again; if the clock is right, run \
             `copr-keygen prolong --trust-clock` first, which leaves a sign of life"
        ))));
    }
    // An age of 0 selects everything, even a key that a wrong clock has dated into the future.
    let is_old = |at: u64| age == 0 || at.saturating_add(age) <= now;
    let mut doomed = store.removed()?;
    doomed.retain(|removed| !options.old_service && is_old(removed.at));
    let mut old_services = store.old_services()?;
    old_services.retain(|(at, _)| is_old(*at));
    for removed in &doomed {
        log::info!("{}, removed {}", removed.name_email, clock::timestamp(removed.at));
    }
    for (at, entry) in &old_services {
        let at = clock::timestamp(*at);
        log::info!("{}, the keys of the old service, taken over {at}", entry.display());
    }
    let count = doomed.len() + old_services.len();
    let what = match old_services.is_empty() {
        true => output::keys(count),
        false => output::number(count, "entry of the trash", "entries of the trash"),
    };
    if count == 0 {
        log::info!("there is nothing so old in the trash");
    } else {
        confirm(options.yes, &format!("Type y to destroy {what} for good: "), "y")?;
    }
    let _work = interrupt::work();
    let (mut destroyed, mut failed) = (Vec::new(), Vec::new());
    let mut note = |name: String, entry: &Path, result: Result<()>| {
        let mut object = json!({"name": name, "entry": entry.to_string_lossy()});
        match result {
            Ok(()) => destroyed.push(object),
            Err(e) => {
                log::error!("{name}: {e}");
                object["error"] = json!(e.to_string());
                failed.push(object);
            }
        }
    };
    for (_, entry) in &old_services {
        note("the old service".into(), entry, store.purge_old_service(entry));
    }
    for (done, removed) in doomed.iter().enumerate() {
        let left = doomed.len() - done;
        interrupt::check(|| {
            format!("{left} of {} are left in the trash", output::keys(doomed.len()))
        })?;
        note(removed.name_email.to_string(), &removed.entry, store.purge(removed));
    }
    output::report(options.json, &json!({"destroyed": destroyed, "failed": failed}), "")?;
    state::all_done(failed.is_empty(), || {
        format!("{} of {what} could not be destroyed, see above", failed.len())
    })?;
    if count > 0 {
        log::info!("destroyed {what}; backups and snapshots may still have them");
    }
    Ok(())
}

/// Asks the user to confirm on the terminal, unless `yes` is set. Fails unless the answer
/// is `expected`, `y` or `yes`.
fn confirm(yes: bool, question: &str, expected: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "nothing was done: stdin is no terminal to ask on; say --yes if you are sure".into(),
        ));
    }
    let failed = |e| Error::io("asking on the terminal", e);
    let mut terminal = io::stderr();
    write!(terminal, "{question}").and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    let answer = answer.trim();
    if answer == expected || matches!(answer, "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Error::Refused("nothing was done".into()))
}
