//! Measures the modes that read every key: `prolong` with nothing to do and with keys
//! that are due, `list`, `check`.

use std::cell::RefCell;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::bare::{Agent, S2K, Scratch, quiet};
use crate::samples::{Contender, Figure, alternate, milliseconds, timed};
use crate::service::{self, Service, memory, mode};
use crate::state::{State, private_directory};
use crate::throughput::sure_rate;
use crate::{Bench, Result, Site};

const ROUNDS: usize = 9;
/// The number of keys from which on a round takes minutes, so that only [`LARGE_ROUNDS`] are made.
const LARGE: usize = 500_000;
const LARGE_ROUNDS: usize = 2;
/// The number of RSA-2048 keys that expire in 30 days and are due.
const DUE: usize = 40;
const DUE_ROUNDS: usize = 5;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let (large, others): (Vec<_>, Vec<_>) = sites.iter().partition(|site| site.size >= LARGE);
    let rounds = bench.options.rounds(ROUNDS);
    let mut figures = alternate("prolong, list, check", rounds, contenders(&others)?)?;
    if !large.is_empty() {
        let contenders = contenders(&large)?;
        figures.extend(alternate("the same, very many keys", LARGE_ROUNDS, contenders)?);
    }
    for site in sites {
        for (id, arguments) in
            [("prolong/memory", &["prolong"][..]), ("list/memory", &["list", "--json"])]
        {
            let peak = peak_memory(&mut mode(&site.state, arguments))?;
            figures.push(Figure::new(id, Some(site.size), "MB", vec![peak]));
        }
    }
    figures.extend(due(bench)?);
    Ok(figures)
}

fn contenders<'a>(sites: &'a [&'a Site]) -> Result<Vec<Contender<'a>>> {
    let mut contenders = Vec::new();
    for site in sites {
        let keys = Some(site.size);
        let run = |arguments: &'static [&str]| {
            move || timed(|| run_mode(&mut mode(&site.state, arguments)))
        };
        contenders.push(Contender::new("prolong/nothing", keys, "ms", run(&["prolong"])));
        contenders.push(Contender::new("list", keys, "ms", run(&["list", "--json"])));
        if can_check(&site.state)? {
            let check = || timed(|| Ok(mode(&site.state, ["check"]).output()?));
            contenders.push(Contender::new("check", keys, "ms", check));
        }
    }
    Ok(contenders)
}

fn run_mode(command: &mut Command) -> Result<()> {
    match command.stdout(Stdio::null()).stderr(Stdio::null()).status()? {
        status if status.success() => Ok(()),
        status => Err(format!("{command:?}: {status}").into()),
    }
}

/// Whether `check` works in this build: it exits with 0 or 1 and prints its page.
fn can_check(state: &State) -> Result<bool> {
    let output = mode(state, ["check"]).output()?;
    Ok(matches!(output.status.code(), Some(0 | 1)) && !output.stdout.is_empty())
}

/// Returns the peak resident memory of a run in MB, as last sampled before its end.
fn peak_memory(command: &mut Command) -> Result<f64> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut peak: f64 = 0.0;
    while child.try_wait()?.is_none() {
        peak = memory(child.id(), "VmHWM").unwrap_or_default().max(peak);
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(peak)
}

/// A key that is due, and the contents of its files before it was prolonged.
struct Due {
    name: String,
    pubring: Vec<u8>,
    record: Vec<u8>,
    fingerprint: String,
}

fn due(bench: &Bench) -> Result<Vec<Figure>> {
    let state = State::open(&bench.options.store.join("due"))?;
    let count = bench.options.rounds(DUE).min(DUE);
    let names: Vec<_> = (0..count).map(|_| bench.names.next()).collect();
    let cores = bench.options.cores;
    {
        let service = Service::start(&state)?;
        let make = |index: usize| {
            service.expect(&service::gen_key(&names[index], 2048, 30), 201).map(drop)
        };
        sure_rate(cores, count, make)?;
    }
    let keys: Result<Vec<_>> = names.into_iter().map(|name| Due::read(&state, name)).collect();
    let keys = keys?;
    #[allow(clippy::cast_precision_loss)]
    let (per_key, on_cores) = (count as f64, cores as f64);

    let processor = RefCell::new(Vec::new());
    let ours = || {
        keys.iter().try_for_each(|key| key.restore(&state))?;
        let (before, started) = (processor_time()?, Instant::now());
        run_mode(&mut mode(&state, ["prolong"]))?;
        let took = milliseconds(started.elapsed());
        processor.borrow_mut().push((processor_time()? - before) / per_key);
        let moved = |key: &&Due| key.has_changed(&state);
        if keys.iter().filter(moved).count() != keys.len() {
            return Err("prolong left keys as they were".into());
        }
        Ok(took * on_cores / per_key)
    };
    let bare = || {
        keys.iter().try_for_each(|key| key.restore(&state))?;
        let homes: Result<Vec<_>> = keys.iter().map(|key| key.copy(&state, bench)).collect();
        let homes = homes?;
        let one = |index: usize| prolong_bare(&homes[index], &keys[index].fingerprint);
        Ok(1000.0 * on_cores / sure_rate(cores, count, one)?)
    };
    let contenders = vec![
        Contender::new("prolong/due", Some(count), "ms x cores", ours),
        Contender::new("prolong/bare", None, "ms x cores", bare),
    ];
    let rounds = bench.options.rounds(DUE_ROUNDS);
    let mut figures = alternate(&format!("prolong, {count} keys due"), rounds, contenders)?;
    let processor = processor.into_inner().split_off(1); // drop the warm-up round
    figures.push(Figure::new("prolong/processor", Some(count), "ms", processor));
    for key in &keys {
        state.forget(&key.name)?;
    }
    Ok(figures)
}

impl Due {
    fn read(state: &State, name: String) -> Result<Self> {
        let home = state.home(&name);
        let record = fs::read(home.join("key.json"))?;
        let object: serde_json::Value = serde_json::from_slice(&record)?;
        let fingerprint = object["fingerprint"].as_str().ok_or("no fingerprint")?.to_owned();
        Ok(Self { pubring: fs::read(home.join("pubring.kbx"))?, name, record, fingerprint })
    }

    fn restore(&self, state: &State) -> Result<()> {
        let home = state.home(&self.name);
        fs::write(home.join("pubring.kbx"), &self.pubring)?;
        Ok(fs::write(home.join("key.json"), &self.record)?)
    }

    fn has_changed(&self, state: &State) -> bool {
        fs::read(state.home(&self.name).join("key.json")).is_ok_and(|now| now != self.record)
    }

    /// Copies the key to a home of its own, for bare gpg.
    fn copy(&self, state: &State, bench: &Bench) -> Result<Scratch> {
        let (home, from) = (Scratch::new(&bench.scratch)?, state.home(&self.name));
        let secret = "private-keys-v1.d";
        private_directory(&home.path().join(secret))?;
        for file in ["pubring.kbx", "passphrase"] {
            fs::copy(from.join(file), home.path().join(file))?;
        }
        for key in fs::read_dir(from.join(secret))? {
            let key = key?;
            fs::copy(key.path(), home.path().join(secret).join(key.file_name()))?;
        }
        Ok(home)
    }
}

/// Runs one bare `--quick-set-expire`, without checks, copies and syncs.
fn prolong_bare(home: &Scratch, fingerprint: &str) -> Result<()> {
    let mut command = Agent::Daemon.gpg(home.path(), S2K);
    command.args(["--pinentry-mode=loopback", "--passphrase-file"]);
    command.arg(home.path().join("passphrase")).args(["--quick-set-expire", fingerprint, "5y"]);
    quiet(&mut command, b"")
}

/// Returns the processor time of all descendants that were waited for so far, in milliseconds.
#[allow(clippy::cast_precision_loss)]
fn processor_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let one = |time: nix::sys::time::TimeVal| {
        time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0
    };
    Ok(one(usage.user_time()) + one(usage.system_time()))
}
