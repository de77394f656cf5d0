//! `copr-keygen import` and `export`: moving in from a GnuPG home that many keys share, and out into
//! one.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use keystore::{
    Filter, ImportOptions, ImportReport, ImportSource, Loss, OldLayout, Store, interrupt,
};
use serde_json::json;

use super::old_service::Step;
use super::{output, progress, unread};
use crate::cli::{Export, Import};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Imports keys from another home. A usable key that was left out makes it fail; a key that was there already
/// does not.
pub fn import(settings: &Settings, options: &Import, from: &Path) -> Result<()> {
    let source = ImportSource::open(from, options.phrases.as_deref(), &settings.state_dir)?;
    let store = open(settings)?;
    let how = how(settings, options)?;
    let report = with_bar(|progress| store.import(&source, how, progress))?;
    let way_out = unread::way_out(&report, source.home(), source.phrases(), settings, options);
    print(&report, options, way_out.as_deref(), &[])?;
    let missed = report.left_out.iter().filter(|key| key.loss != Loss::Nothing).count();
    end(report, missed)
}

/// Takes over the keys of the old service in the state directory itself, and prints what is left to do.
pub fn import_in_place(settings: &Settings, options: &Import, steps: &[Step]) -> Result<()> {
    let Some(layout) = OldLayout::find(settings.keystore()?)? else {
        return nothing_to_take_over(settings, options, steps);
    };
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    let how = how(settings, options)?;
    if options.dry_run {
        let scratch = Scratch::make()?;
        let report = with_bar(|progress| layout.dry_run(gpg, &scratch.0, how, progress))?;
        let missed = report.missed().count() + report.unread.len();
        let would_stop = missed > 0 && !options.leave_out;
        print(&report, options, None, if would_stop { &[] } else { steps })?;
        if would_stop {
            return Err(Error::Partly(format!(
                "the import would stop before anything changes: {missed} keys, or files with keys, cannot be \
                 taken over, see above"
            )));
        }
        return end(report, missed);
    }
    let (report, kept) = with_bar(|progress| layout.import(gpg, how, options.leave_out, progress))?;
    // What was left behind can be taken over from where the old directories are kept.
    let way_out = kept.as_ref().and_then(|kept| {
        let [home, phrases] = ["gnupg", "phrases"].map(|part| kept.join(part));
        unread::way_out(&report, &home, Some(&phrases), settings, options)
    });
    let is_done = report.stopped.is_none();
    print(&report, options, way_out.as_deref(), if is_done { steps } else { &[] })?;
    if let Some(kept) = kept {
        log::info!("the directories of the old service are kept in {}", kept.display());
    }
    let missed = report.missed().count();
    end(report, missed)
}

/// Says why there is nothing to take over, or that it has been done and what is left to do.
fn nothing_to_take_over(settings: &Settings, options: &Import, steps: &[Step]) -> Result<()> {
    let state = settings.state_dir.display();
    if let Some(kept) = OldLayout::kept(&settings.state_dir)?.last() {
        log::info!(
            "the keys of the old service have been taken over; {} keeps them",
            kept.display()
        );
        return print(&ImportReport::default(), options, None, steps);
    }
    match OldLayout::orphans(&settings.state_dir) {
        0 => Err(Error::Usage(format!(
            "{state} holds no keyring of another service; name the GnuPG home that the keys are in: \
             copr-keygen import --from GNUPGHOME --phrases DIR"
        ))),
        count => Err(Error::Refused(format!(
            "{state}/gnupg holds {} of no home, but no keyring with their certificates: put its \
             pubring.kbx or pubring.gpg back from a backup, then run this again",
            output::number(count, "secret key", "secret keys")
        ))),
    }
}

fn how(settings: &Settings, options: &Import) -> Result<ImportOptions> {
    let jobs = *settings.jobs.get()?;
    Ok(ImportOptions { protect: options.protect, dry_run: options.dry_run, jobs })
}

fn with_bar<T>(work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> T) -> T {
    let bar = progress::bar(0, "of the keyring");
    let result = work(&|done, total| {
        bar.set_message("keys");
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    result
}

fn print(
    report: &ImportReport,
    options: &Import,
    way_out: Option<&str>,
    steps: &[Step],
) -> Result<()> {
    if options.json {
        let mut object = serde_json::to_value(report)
            .map_err(|e| Error::io("writing JSON", std::io::Error::other(e)))?;
        object["dry_run"] = json!(options.dry_run);
        object["way_out"] = json!(way_out);
        if options.from.is_none() {
            object["left_to_do"] = json!(steps);
        }
        return output::json(&object);
    }
    let mut text = import_text(report, options.dry_run, way_out);
    if !steps.is_empty() {
        text.push_str("\nleft to do, as root:\n\n");
        text.extend(steps.iter().map(Step::text));
    }
    output::print(&text)
}

fn end(report: ImportReport, missed: usize) -> Result<()> {
    match report.stopped {
        Some(error @ (Error::Partly(_) | Error::Interrupted { .. })) => Err(error),
        Some(error) => {
            log::warn!(
                "stopped after {} keys; run the same command again to go on",
                report.imported.len()
            );
            Err(error)
        }
        None if missed > 0 || !report.unread.is_empty() => Err(Error::Partly(format!(
            "{missed} keys that can sign were left out, {} with keys not read, see above; the \
             documentation (moving.md) says what to do",
            output::number(report.unread.len(), "file", "files")
        ))),
        None => Ok(()),
    }
}

/// A directory for what gpg writes while nothing is to be changed. Gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self> {
        // In memory, where there is a place for it: to choose between keys, copies of them are made.
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let path = above.join(format!("copr-keygen-{:016x}", rand::random::<u64>()));
        let failed = |e| Error::io(format!("making {}", path.display()), e);
        let scratch = Self(path.clone());
        for directory in [path.clone(), path.join("staging")] {
            DirBuilder::new().mode(0o700).create(directory).map_err(failed)?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            log::warn!("{}: could not be removed: {e}", self.0.display());
        }
    }
}

fn import_text(report: &ImportReport, dry_run: bool, way_out: Option<&str>) -> String {
    let mut text = String::new();
    if dry_run {
        for key in &report.imported {
            text.push_str(&format!("would import  {}  {}\n", key.name_email, key.fingerprint));
        }
    }
    for key in &report.left_out {
        text.push_str(&format!("left out  {key}  {}\n", key.reason));
    }
    for key in &report.shadowed {
        text.push_str(&format!(
            "note  {}  obs-signd may have signed for it with the key of {} until now\n",
            key.name_email, key.by
        ));
    }
    text.push_str(&unread::keyless_text(report));
    text.push_str(&unread::text(report, way_out));
    text.push_str(&format!(
        "{} keys {}, {} were here already, {} left out\n",
        report.imported.len(),
        if dry_run { "would be imported" } else { "imported" },
        report.already.len(),
        report.left_out.len()
    ));
    text
}

/// Exports keys.
pub fn export(settings: &Settings, options: &Export) -> Result<()> {
    let store = open(settings)?;
    let _work = interrupt::work();
    let bar = progress::bar(0, "tried");
    let filter = Filter { pattern: options.pattern.clone(), ..Filter::default() };
    let report = store.export(&options.to, &filter, *settings.jobs.get()?, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let report = report?;
    let to = options.to.display();
    for key in report.missing() {
        log::error!("{key}: {}", key.reason);
    }
    if options.json {
        output::json(&report)?;
    } else {
        output::print(&format!("{} keys are in {to}\n", report.exported.len()))?;
    }
    match (report.left_out.len(), report.not_signing.len()) {
        (0, 0) => Ok(()),
        (left_out, not_signing) => Err(Error::Partly(format!(
            "{left_out} keys could not be exported, {not_signing} do not sign in {to}, see above; it stays \
             marked as INCOMPLETE, all other keys in it sign"
        ))),
    }
}

fn open(settings: &Settings) -> Result<Store> {
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    Store::open(&settings.keystore()?, gpg)
}
