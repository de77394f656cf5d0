//! `copr-keygen prolong`: gives every key that expires soon a later expiry, several keys at once, and runs
//! the hook. A key that fails does not stop the others. After an interruption, the next run continues.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gpg::{clock, short_rsa};
use keystore::{Evidence, Filter, Key, Prolonged, Store, Term, interrupt, parallel, remedy};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{hook, output, progress, state};
use crate::cli;
use crate::error::{Error, Result};
use crate::metrics::{self, KeyCounts};
use crate::settings::Settings;
use crate::systemd::journal::event;

/// Prolongs the keys that are due. If several hosts share keys, only one of them does so at a time.
pub fn run(settings: &Settings, options: &cli::Prolong) -> Result<()> {
    let Some(cluster) = settings.cluster_directory.as_ref().filter(|_| !options.dry_run) else {
        return run_alone(settings, options);
    };
    match cluster.take_turn(settings.cluster.host.get()?)? {
        Ok(turn) => turn.keep_while(|| run_alone(settings, options)),
        Err(host) => {
            log::info!("the host {host} prolongs at the moment; nothing was done here");
            match options.json {
                true => output::json(&json!({ "prolongs_elsewhere": host })),
                false => Ok(()),
            }
        }
    }
}

fn run_alone(settings: &Settings, options: &cli::Prolong) -> Result<()> {
    let store = state::open(settings)?;
    // From here on, a signal ends the run in order, with its report.
    let _work = (!options.dry_run).then(interrupt::work);
    let plan = Plan::make(&store, &settings.state_dir, Evidence::of(&settings.state_dir), options)?;
    if !options.dry_run {
        settings.metrics_file.get()?;
        hook::prepare(settings)?;
        // Leave a sign of life in staging/. By its time a later run can tell that the clock has not jumped.
        store.workplace().map(drop).unwrap_or_else(|e| log::warn!("{e}"));
    }
    let report = if options.dry_run {
        Report::default()
    } else {
        prolong_all(&store, &plan, *settings.jobs.get()?)
    };
    if report.changed() > 0 {
        store.tell_signd()?;
    }
    let (told, written) = match options.dry_run {
        true => (Ok(()), Ok(())),
        // An interrupted run does not start the hook.
        false if report.is_interrupted() => (Ok(()), write_metrics(settings, &store)),
        false => (hook::tell(settings, store.catalog()), write_metrics(settings, &store)),
    };
    let shown = show(&plan, &report, options);
    all_of([report.result(&plan), told, written, shown])
}

/// Returns the first error, preferring an interruption, and logs the others.
fn all_of<const N: usize>(results: [Result<()>; N]) -> Result<()> {
    let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    errors.sort_by_key(|error| !matches!(error, Error::Interrupted { .. }));
    let mut errors = errors.into_iter();
    let first = errors.next();
    errors.for_each(|error| log::error!("{error}"));
    first.map_or(Ok(()), Err)
}

/// Writes the counts of keys for node_exporter, if `metrics_file` is set.
fn write_metrics(settings: &Settings, store: &Store) -> Result<()> {
    let Some(file) = settings.metrics_file.get()? else { return Ok(()) };
    let now = clock::now()?;
    let counts = KeyCounts::count(store.catalog(), &settings.state_dir, now)?;
    metrics::write_file(file, &counts, now)
}

/// The keys that are due, and counts of the others.
struct Plan {
    /// The number of keys on this host that could be read.
    seen: usize,
    /// The number of keys that could not be read; each has been logged.
    unreadable: usize,
    /// The keys to be prolonged; those that expire first come first.
    due: Vec<Key>,
    /// The number of keys that have expired and are left alone.
    expired: usize,
    /// Until when a key must expire to be due, and the new expiry.
    term: Term,
}

impl Plan {
    fn make(
        store: &Store,
        state: &Path,
        mut evidence: Evidence,
        options: &cli::Prolong,
    ) -> Result<Self> {
        let now = clock::believed()?;
        let until = options
            .by
            .expiry(now)
            .map_err(|why| Error::Usage(format!("--by: {why}")))?
            .unwrap_or(u64::from(u32::MAX));
        let term = Term { due: now + u64::from(options.within.seconds()), until };
        let mut plan = Self { seen: 0, unreadable: 0, due: Vec::new(), expired: 0, term };
        let keys = store.catalog().keys(Filter::default())?;
        for key in state::readable(keys, &mut plan.unreadable) {
            plan.seen += 1;
            evidence.see(&key.name_email, &key.record);
            let has_expired = key.record.expires.is_some_and(|at| at <= now);
            if has_expired && !options.expired {
                plan.expired += 1;
            } else if term.is_for(key.record.expires) {
                plan.due.push(key);
            }
        }
        if let Some(words) = evidence.against(now).filter(|_| !options.trust_clock) {
            return Err(Error::Gpg(gpg::Error::Clock(format!(
                "nothing was prolonged: {words}; set the clock, then run it again; if the clock is right \
                 now: `{}` prolongs what is due, but no key that is dated after it{}",
                remedy::command(state, "prolong --trust-clock"),
                match evidence.is_only_of_change(now) {
                    true => format!(
                        ", and `{}` puts right when keys were last changed",
                        remedy::command(state, "check --repair")
                    ),
                    false => String::new(),
                }
            ))));
        }
        plan.due.sort_by_key(|key| key.record.expires);
        Ok(plan)
    }
}

/// The outcome of a run.
#[derive(Default)]
struct Report {
    prolonged: Vec<(Key, Key)>,
    already: usize,
    in_use: usize,
    failed: Vec<(Key, Error)>,
    /// The number of due keys that the run did not get to.
    left: usize,
    /// The signal that interrupted the run.
    interrupted: Option<Signal>,
}

impl Report {
    fn changed(&self) -> usize {
        self.prolonged.len() + self.already
    }

    fn is_interrupted(&self) -> bool {
        self.left > 0 && self.interrupted.is_some()
    }

    fn result(&self, plan: &Plan) -> Result<()> {
        let failed = self.failed.len() + plan.unreadable;
        let mut words = Vec::new();
        if failed > 0 {
            words.push(format!("{} could not be prolonged, see above", output::keys(failed)));
        }
        if self.left > 0 {
            let keys = output::number(self.left, "key is", "keys are");
            words.push(format!("{keys} left for the next run"));
        }
        let left = words.join("; ");
        match self.interrupted.filter(|_| self.left > 0) {
            Some(signal) => Err(Error::Interrupted { signal, left }),
            None => state::all_done(left.is_empty(), || left),
        }
    }

    fn add(&mut self, key: &Key, result: Option<Result<Prolonged>>) {
        match result {
            None => self.left += 1,
            Some(Ok(Prolonged::Done(now))) => self.prolonged.push((key.clone(), now)),
            Some(Ok(Prolonged::Already(_))) => self.already += 1,
            // Another run works on the key, or it has been removed meanwhile.
            Some(Err(Error::InUse(_) | Error::NoKey(_))) => self.in_use += 1,
            Some(Err(e)) => self.failed.push((key.clone(), e)),
        }
    }
}

fn prolong_all(store: &Store, plan: &Plan, jobs: usize) -> Report {
    let stop = AtomicBool::new(false);
    let results = progress::with_bar("prolonged", |progress| {
        progress.at(0, plan.due.len());
        let prolong = |key: &Key| {
            if stop.load(Ordering::Relaxed) || interrupt::signal().is_some() {
                return None;
            }
            let result = store.prolong(&key.name_email, plan.term);
            if let Err(e) = &result {
                stop.fetch_or(ends_the_run(e), Ordering::Relaxed);
                progress.suspend(|| report_failure(key, e));
            }
            progress.one();
            Some(result)
        };
        parallel::map(plan.due.iter().collect(), jobs, prolong)
    });
    let mut report = Report { interrupted: interrupt::signal(), ..Report::default() };
    for (key, result) in plan.due.iter().zip(results) {
        report.add(key, result);
    }
    report.prolonged.sort_by(|(a, _), (b, _)| a.name_email.cmp(&b.name_email));
    report
}

/// Whether every other key would fail in the same way.
fn ends_the_run(error: &Error) -> bool {
    matches!(error, Error::Gpg(gpg::Error::NoSpace { .. } | gpg::Error::Missing { .. }))
}

fn report_failure(key: &Key, error: &Error) {
    match error {
        Error::InUse(_) | Error::NoKey(_) => log::info!("{error}"),
        _ => {
            let name_email = key.name_email.as_str();
            let fields = [
                ("MESSAGE_ID", event::PROLONG_FAILED),
                ("NAME_EMAIL", name_email),
                ("FINGERPRINT", key.record.fingerprint.as_str()),
            ];
            let message = format!("the key of {name_email} was not prolonged: {error}");
            event::log(log::Level::Error, &fields, &message);
        }
    }
}

/// Logs a line with the counts and prints the JSON report if asked for. The counts add up
/// to the number of keys on this host.
fn show(plan: &Plan, report: &Report, options: &cli::Prolong) -> Result<()> {
    let until = clock::date(plan.term.until);
    let all = output::keys(plan.seen + plan.unreadable);
    let idle = plan.seen - plan.due.len() - plan.expired;
    let (expired, unreadable) = (plan.expired, plan.unreadable);
    let (prolonged, failed) = (report.prolonged.len(), report.failed.len() + unreadable);
    let summary = if options.dry_run {
        let due = plan.due.len();
        format!(
            "{all}: {due} would be prolonged until {until}, {idle} need nothing, {expired} expired and \
             would be left alone, {unreadable} unreadable; nothing was changed"
        )
    } else {
        let (idle, in_use, left) = (idle + report.already, report.in_use, report.left);
        format!(
            "{all}: {prolonged} prolonged until {until}, {idle} needed nothing, {in_use} in use by others, \
             {failed} failed, {left} left for the next run, {expired} expired and left alone"
        )
    };
    let counts = [plan.seen, prolonged, failed, expired].map(|count| count.to_string());
    let fields = [
        ("MESSAGE_ID", event::PROLONGED),
        ("KEYS_SEEN", counts[0].as_str()),
        ("KEYS_PROLONGED", &counts[1]),
        ("KEYS_FAILED", &counts[2]),
        ("KEYS_EXPIRED", &counts[3]),
    ];
    event::log(log::Level::Info, &fields, &summary);
    if expired > 0 {
        log::warn!(
            "{} expired; `copr-keygen list --expires-before 0d` names them, `copr-keygen prolong --expired` \
             prolongs them",
            output::number(expired, "key has", "keys have")
        );
    }
    warn_of_short_keys(plan, report, options);
    match options.json {
        true => output::json(&object(plan, report, options)),
        false => Ok(()),
    }
}

/// Warns about the keys whose new expiry apt will not accept.
fn warn_of_short_keys(plan: &Plan, report: &Report, options: &cli::Prolong) {
    let keys: Vec<_> = match options.dry_run {
        true => plan.due.iter().collect(),
        false => report.prolonged.iter().map(|(_, after)| after).collect(),
    };
    let until = Some(plan.term.until);
    let is_early = |key: &&&Key| short_rsa::ends_early(&key.record.algorithm, until);
    let count = keys.iter().filter(is_early).count();
    if count > 0 {
        log::warn!(
            "apt 3 will not believe the new expiry of {} of less than 3072 bits: it refuses such keys \
             from {} on, rpm does not; `copr-keygen check` says what to do",
            output::number(count, "RSA key", "RSA keys"),
            clock::date(short_rsa::APT_ENDS)
        );
    }
}

fn object(plan: &Plan, report: &Report, options: &cli::Prolong) -> Value {
    let failed = |(key, error): &(Key, Error)| output::failure(&key.name_email, error);
    let prolonged = |(before, after): &(Key, Key)| {
        let mut object = json!(after);
        object["expired_before"] = json!(before.record.expires);
        object
    };
    json!({
        "dry_run": options.dry_run,
        "seen": plan.seen,
        "unreadable": plan.unreadable,
        "until": plan.term.until,
        "due": plan.due,
        "prolonged": report.prolonged.iter().map(prolonged).collect::<Vec<_>>(),
        "already": report.already,
        "in_use": report.in_use,
        "failed": report.failed.iter().map(failed).collect::<Vec<_>>(),
        "left": report.left,
        "expired": plan.expired,
    })
}
