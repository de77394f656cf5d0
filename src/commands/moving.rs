//! `copr-keygen import` and `export`: moving in from a GnuPG home that many keys share, and out into
//! one.

use serde_json::json;

use super::{output, progress};
use crate::cli::{Export, Import};
use crate::error::{Error, Result};
use crate::gpg::Gpg;
use crate::interrupt;
use crate::keys::{Filter, ImportOptions, ImportReport, LeftOut, Source, Store};
use crate::settings::Settings;

/// Imports keys. A usable key that was left out makes it fail; a key that was there already does not.
pub fn import(settings: &Settings, options: &Import) -> Result<()> {
    let source = Source::open(&options.from, options.phrases.as_deref(), &settings.state_dir)?;
    let store = open(settings)?;
    let bar = progress::bar(0, "of the keyring");
    let report = store.import(
        &source,
        ImportOptions { protect: options.protect, dry_run: options.dry_run, jobs: settings.jobs },
        &|done, total| {
            bar.set_message("keys");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    let report = report?;
    if options.json {
        let mut object = serde_json::to_value(&report)
            .map_err(|e| Error::io("writing JSON", std::io::Error::other(e)))?;
        object["dry_run"] = json!(options.dry_run);
        output::json(&object)?;
    } else {
        output::print(&import_text(&report, options.dry_run))?;
    }
    let missed = report.left_out.iter().filter(|key| key.usable).count();
    match report.stopped {
        Some(error @ Error::Interrupted { .. }) => Err(error),
        Some(error) => {
            log::warn!(
                "stopped after {} keys; run the same command again to go on",
                report.imported.len()
            );
            Err(error)
        }
        None if missed > 0 => Err(Error::Partly(format!(
            "{missed} keys that can sign were left out; the documentation (moving.md) says what to do"
        ))),
        None => Ok(()),
    }
}

fn import_text(report: &ImportReport, dry_run: bool) -> String {
    let mut text = String::new();
    if dry_run {
        for key in &report.imported {
            text.push_str(&format!("would import  {}  {}\n", key.name_email, key.fingerprint));
        }
    }
    for key in &report.left_out {
        text.push_str(&left_out_text(key));
    }
    for key in &report.shadowed {
        text.push_str(&format!(
            "note  {}  obs-signd may have signed for it with the key of {} until now\n",
            key.name_email, key.by
        ));
    }
    text.push_str(&format!(
        "{} keys {}, {} were here already, {} left out\n",
        report.imported.len(),
        if dry_run { "would be imported" } else { "imported" },
        report.already.len(),
        report.left_out.len()
    ));
    text
}

fn left_out_text(key: &LeftOut) -> String {
    let who = match &key.name_email {
        Some(name_email) => name_email.to_string(),
        // Not checked by anybody: it must not steer a terminal.
        None => format!("{:?}", key.user_id),
    };
    format!("left out  {who}  {}  {}\n", key.fingerprint, key.reason)
}

/// Exports keys.
pub fn export(settings: &Settings, options: &Export) -> Result<()> {
    let store = open(settings)?;
    let _work = interrupt::work();
    let bar = progress::bar(0, "exported");
    let filter = Filter { pattern: options.pattern.clone(), ..Filter::default() };
    let report = store.export(&options.to, filter, &|done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let report = report?;
    output::print(&format!("{} keys are in {}\n", report.exported, options.to.display()))?;
    match report.failed {
        0 => Ok(()),
        count => Err(Error::Partly(format!(
            "{count} keys could not be exported, see above; {} stays marked as INCOMPLETE",
            options.to.display()
        ))),
    }
}

fn open(settings: &Settings) -> Result<Store> {
    let gpg = Gpg::new(settings)?;
    gpg.check_installed()?;
    Store::open(settings, gpg)
}
