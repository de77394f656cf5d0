//! `copr-keygen remove`, `undo` and `purge`: keys go out of use, come back, or are destroyed. Nothing
//! that cannot be undone happens without a yes.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cli::{Purge, Remove, Undo};
use crate::clock;
use crate::error::{Error, Result};
use crate::gpg::Gpg;
use crate::interrupt;
use crate::keys::{Removed, Store};
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
    let now = clock::now()?;
    // 0 is all, also what a clock that was wrong has dated into the future.
    let is_old = |removed: &Removed| age == 0 || removed.at.saturating_add(age) <= now;
    let doomed: Vec<_> = store.removed()?.into_iter().filter(is_old).collect();
    if doomed.is_empty() {
        log::info!("there is nothing so old in the trash");
        return Ok(());
    }
    for removed in &doomed {
        log::info!("{}, removed {}", removed.name_email, clock::timestamp(removed.at));
    }
    let count = doomed.len();
    confirm(options.yes, &format!("Type y to destroy these {count} keys for good: "), "y")?;
    let _work = interrupt::work();
    let mut failed = 0;
    for (done, removed) in doomed.iter().enumerate() {
        interrupt::check(|| format!("{} of {count} keys are left in the trash", count - done))?;
        if let Err(e) = store.purge(removed) {
            log::error!("{}: {e}", removed.name_email);
            failed += 1;
        }
    }
    match failed {
        0 => {
            log::info!("destroyed {count} keys; backups and snapshots may still have them");
            Ok(())
        }
        failed => {
            Err(Error::Partly(format!("{failed} of {count} keys were not destroyed, see above")))
        }
    }
}

fn open(settings: &Settings) -> Result<Store> {
    super::open_existing(settings, Gpg::new(settings)?)
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
