//! `copr-keygen import` and `export`: take keys over from a GnuPG home that many keys
//! share, and write keys to such a home.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gpg::text::printable;
use keystore::{
    Filter, ImportOptions, ImportReport, ImportSource, Loss, OldLayout, interrupt, lost_keys,
};
use serde_json::json;

use super::{old_service::Step, state};
use super::{output, progress, unread};
use crate::cli::{Export, Import};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Imports the keys of the GnuPG home `from`. Fails if a key that can sign was left out. A key that this
/// state already has is no failure.
pub fn import(settings: &Settings, options: &Import, from: &Path) -> Result<()> {
    let source = ImportSource::open(from, options.phrases.as_deref(), &settings.state_dir)?;
    let store = state::open_with_gpg(settings)?;
    let how = how(settings, options)?;
    let report = with_bar(|at| store.import(&source, how, at))?;
    let way_out = unread::way_out(&report, source.home(), source.phrases(), settings, options);
    print(&report, options, way_out.as_deref(), &[])?;
    let missed = report.left_out.iter().filter(|key| key.loss != Loss::Nothing).count();
    end(report, missed)
}

/// Takes over the keys of the old service in the state directory itself, and prints the steps that are left.
pub fn import_in_place(settings: &Settings, options: &Import, steps: &[Step]) -> Result<()> {
    let Some(layout) = OldLayout::find(settings.keystore()?)? else {
        return nothing_to_take_over(settings, options, steps);
    };
    let gpg = state::working_gpg(settings)?;
    let how = how(settings, options)?;
    if options.dry_run {
        // A signal ends the run in order, so that the scratch directory is removed.
        let _work = interrupt::work();
        let scratch = Scratch::make()?;
        let report = with_bar(|at| layout.dry_run(gpg, &scratch.0, how, at))?;
        let missed = report.missed().count() + report.unread.len();
        let would_stop = missed > 0 && !options.leave_out;
        print(&report, options, None, if would_stop { &[] } else { steps })?;
        if would_stop {
            return Err(Error::Partly(format!(
                "the import would stop before anything changes: {} cannot be taken over, see above",
                output::number(missed, "key or file with keys", "keys or files with keys")
            )));
        }
        return end(report, missed);
    }
    let (report, kept) = with_bar(|at| layout.import(gpg, how, options.leave_out, at))?;
    // Files that were not read can be imported later, from the trash entry that keeps the old directories.
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

/// Reports that the keys have already been taken over, with the steps that are left; otherwise fails with the
/// reason why there is nothing to take over.
fn nothing_to_take_over(settings: &Settings, options: &Import, steps: &[Step]) -> Result<()> {
    let state = settings.state_dir.display();
    if let Some(kept) = OldLayout::kept(&settings.state_dir)?.last() {
        log::info!(
            "the keys of the old service have been taken over; {} keeps them",
            kept.display()
        );
        return print(&ImportReport::default(), options, None, steps);
    }
    match lost_keys::orphans(&settings.state_dir) {
        0 => Err(Error::Usage(format!(
            "{state} holds no keyring of another service; name the GnuPG home that the keys are in: \
             copr-keygen import --from GNUPGHOME --phrases DIR"
        ))),
        count => {
            Err(Error::Refused(lost_keys::orphans_without_certificates(&settings.state_dir, count)))
        }
    }
}

fn how(settings: &Settings, options: &Import) -> Result<ImportOptions> {
    let jobs = *settings.jobs.get()?;
    Ok(ImportOptions { protect: options.protect, dry_run: options.dry_run, jobs })
}

fn with_bar<T>(work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> T) -> T {
    progress::with_bar("of the keyring", |progress| work(&|done, total| progress.at(done, total)))
}

fn print(
    report: &ImportReport,
    options: &Import,
    way_out: Option<&str>,
    steps: &[Step],
) -> Result<()> {
    let mut object = output::value(report)?;
    object["dry_run"] = json!(options.dry_run);
    object["way_out"] = json!(way_out);
    if options.from.is_none() {
        object["left_to_do"] = json!(steps);
    }
    let mut text = import_text(report, options.dry_run, way_out);
    if !steps.is_empty() {
        text.push_str(if options.dry_run {
            "\nleft to do after the import, as root:\n\n"
        } else {
            "\nleft to do, as root:\n\n"
        });
        text.extend(steps.iter().map(Step::text));
    }
    output::report(options.json, &object, &text)
}

fn end(report: ImportReport, missed: usize) -> Result<()> {
    match report.stopped {
        Some(error @ (Error::Partly(_) | Error::Interrupted { .. })) => Err(error),
        Some(error) => {
            log::warn!(
                "stopped after {}; run the same command again to go on",
                output::keys(report.imported.len())
            );
            Err(error)
        }
        None if missed > 0 || !report.unread.is_empty() => Err(Error::Partly(format!(
            "{} left out, {} with keys not read, see above; the documentation (moving.md) says what to do",
            output::number(missed, "key that can sign was", "keys that can sign were"),
            output::number(report.unread.len(), "file", "files")
        ))),
        None => Ok(()),
    }
}

/// A directory for the files of gpg during a dry run. Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self> {
        // Use memory if possible: secret keys are copied there to see which key of an identity gpg signs with.
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
    for key in report.imported.iter().filter(|_| dry_run) {
        let _ = writeln!(text, "would import  {}  {}", key.name_email, key.fingerprint);
    }
    for key in &report.left_out {
        let _ = writeln!(text, "left out  {key}  {}", printable(&key.reason));
    }
    for key in &report.shadowed {
        let _ = writeln!(
            text,
            "note  {}  obs-signd may have signed for it with the key of {} until now",
            key.name_email, key.by
        );
    }
    text.push_str(&unread::keyless_text(report));
    text.push_str(&unread::text(report, way_out));
    let _ = writeln!(
        text,
        "{} {}, {} were here already, {} left out",
        output::keys(report.imported.len()),
        if dry_run { "would be imported" } else { "imported" },
        report.already.len(),
        report.left_out.len()
    );
    text
}

/// Exports the keys that match a pattern to a GnuPG home that they share.
pub fn export(settings: &Settings, options: &Export) -> Result<()> {
    let store = state::open_with_gpg(settings)?;
    let _work = interrupt::work();
    let filter = Filter { pattern: options.pattern.clone(), ..Filter::default() };
    let jobs = *settings.jobs.get()?;
    let report = progress::with_bar("tried", |progress| {
        store.export(&options.to, &filter, jobs, &|done, total| progress.at(done, total))
    })?;
    for key in report.missing() {
        log::error!("{key}: {}", key.reason);
    }
    let (exported, to) = (output::keys(report.exported.len()), options.to.display());
    output::report(options.json, &report, &format!("{exported} exported to {to}\n"))?;
    let (left_out, not_signing) = (report.left_out.len(), report.not_signing.len());
    state::all_done(left_out + not_signing == 0, || {
        format!(
            "{} could not be exported, {} cannot sign in {to}, see above; it stays marked as INCOMPLETE, \
             all other keys in it sign",
            output::keys(left_out),
            output::keys(not_signing)
        )
    })
}
