//! `copr-keygen remove`, `undo` and `purge`: keys go out of use, come back, or are destroyed. Nothing
//! that cannot be undone happens without a yes.

use std::io::{self, BufRead, IsTerminal, Write};

use gpg::clock;
use keystore::{Evidence, Removed, Store, interrupt};

use crate::cli::{Purge, Remove, Undo};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Moves a key to the trash.
pub fn remove(settings: &Settings, options: &Remove) -> Result<()> {
    let store = open(settings)?;
    let name_email = &options.name_email;
    let record = store
        .catalog()
        .homes()
        .find(name_email)?
        .ok_or_else(|| Error::NoKey(name_email.clone()))?;
    log::info!(
        "{name_email}: the key {} goes to the trash, and nothing can be signed with it any more; the \
         next request for a key of this name makes a NEW key. Until it is purged, `copr-keygen undo` \
         brings it back",
        record.fingerprint
    );
    confirm(options.yes, "Type the name of the key, or y, to remove it: ", name_email.as_str())?;
    let _work = interrupt::work();
    let removed = store.remove(name_email)?;
    log::info!("{name_email}: removed; it is in {}", removed.entry.display());
    log::info!(
        "nothing was published; if nobody is to trust what it has signed, publish {}",
        removed.revoked_certificate().display()
    );
    Ok(())
}

/// Brings a key back.
pub fn undo(settings: &Settings, options: &Undo) -> Result<()> {
    let store = open(settings)?;
    let _work = interrupt::work();
    let record = store.undo(&options.name_email)?;
    log::info!("{}: the key {} is back", options.name_email, record.fingerprint);
    Ok(())
}

/// Destroys keys in the trash.
pub fn purge(settings: &Settings, options: &Purge) -> Result<()> {
    let store = open(settings)?;
    match store.finish_purges()? {
        0 => {}
        count => log::info!("finished {count} purges that were interrupted"),
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
    // 0 is all, also what a clock that was wrong has dated into the future.
    let is_old = |at: u64| age == 0 || at.saturating_add(age) <= now;
    let is_doomed = |removed: &Removed| is_old(removed.at);
    let removed = if options.old_service { Vec::new() } else { store.removed()? };
    let doomed: Vec<_> = removed.into_iter().filter(is_doomed).collect();
    let old_services: Vec<_> =
        store.old_services()?.into_iter().filter(|(at, _)| is_old(*at)).collect();
    if doomed.is_empty() && old_services.is_empty() {
        log::info!("there is nothing so old in the trash");
        return Ok(());
    }
    for removed in &doomed {
        log::info!("{}, removed {}", removed.name_email, clock::timestamp(removed.at));
    }
    for (at, entry) in &old_services {
        let at = clock::timestamp(*at);
        log::info!("{}, the keys of the old service, taken over {at}", entry.display());
    }
    let count = doomed.len() + old_services.len();
    let what = match (old_services.is_empty(), count) {
        (true, _) => "keys",
        (false, 1) => "entry of the trash",
        (false, _) => "entries of the trash",
    };
    confirm(options.yes, &format!("Type y to destroy {count} {what} for good: "), "y")?;
    let _work = interrupt::work();
    let mut failed = 0;
    for (_, entry) in &old_services {
        if let Err(e) = store.purge_old_service(entry) {
            log::error!("{}: {e}", entry.display());
            failed += 1;
        }
    }
    for (done, removed) in doomed.iter().enumerate() {
        let left = doomed.len() - done;
        interrupt::check(|| format!("{left} of {} keys are left in the trash", doomed.len()))?;
        if let Err(e) = store.purge(removed) {
            log::error!("{}: {e}", removed.name_email);
            failed += 1;
        }
    }
    match failed {
        0 => {
            log::info!("destroyed {count} {what}; backups and snapshots may still have them");
            Ok(())
        }
        failed => {
            Err(Error::Partly(format!("{failed} of {count} {what} were not destroyed, see above")))
        }
    }
}

fn open(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, settings.gnupg()?)
}

/// Asks on the terminal; `expected` or a yes lets it pass.
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
