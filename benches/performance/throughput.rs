//! Measures new keys per second with an empty pool, by the service and by bare gpg. gpg runs in a home for
//! each key, the best that the cores can do, and in one shared home, the old way.

use std::cell::RefCell;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::bare::{self, Agent, Fresh, Scratch};
use crate::samples::{Contender, Figure, alternate};
use crate::{Bench, Result, Site, service};

const CLIENTS: [usize; 3] = [1, 2, 4];
/// The number of keys in one round. A round that a target judges makes more, as the
/// search for primes is a matter of luck.
const KEYS: usize = 16;
const KEYS_JUDGED: usize = 32;
const ROUNDS: usize = 8;
const ROUNDS_JUDGED: usize = 10;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for clients in CLIENTS {
        let (keys, rounds) =
            if clients == 2 { (KEYS_JUDGED, ROUNDS_JUDGED) } else { (KEYS, ROUNDS) };
        let (keys, rounds) = (bench.options.rounds(keys).min(keys), bench.options.rounds(rounds));
        let shared = SharedHome::new(bench)?;
        let failures = RefCell::new(Vec::new());
        let mut contenders = Vec::new();
        // With two clients, measure all sizes, to show once that the size does not matter.
        let ends = [sites.first(), sites.last()].into_iter().flatten();
        let mut chosen: Vec<&Site> =
            if clients == 2 { sites.iter().collect() } else { ends.collect() };
        chosen.dedup_by_key(|site| site.size);
        for site in chosen {
            let run = move || through_service(bench, site, clients, keys);
            contenders.push(Contender::new(
                format!("rate/{clients}"),
                Some(site.size),
                "keys/s",
                run,
            ));
        }
        for agent in Agent::ALL {
            let run = move || separate_homes(bench, agent, clients, keys);
            let id = format!("bound/{clients}/{}", agent.name());
            contenders.push(Contender::new(id, None, "keys/s", run));
        }
        let run = || {
            let (rate, failed) = shared.run(clients, keys)?;
            failures.borrow_mut().push(failed);
            Ok(rate)
        };
        contenders.push(Contender::new(format!("shared/{clients}"), None, "keys/s", run));
        figures.extend(alternate(&format!("keys/s, {clients} clients"), rounds, contenders)?);
        let failures = failures.into_inner();
        figures.push(Figure::new(format!("shared/{clients}/failed"), None, "% failed", failures));
    }
    Ok(figures)
}

/// Does `count` jobs on `clients` threads. Returns the successful jobs per second, and
/// the errors of the others.
#[allow(clippy::cast_precision_loss)]
pub fn rate(
    clients: usize,
    count: usize,
    job: impl Fn(usize) -> Result<()> + Sync,
) -> Result<(f64, Vec<String>)> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if let Err(e) = job(index) {
                        failures.lock().unwrap_or_else(|e| e.into_inner()).push(e.to_string());
                    }
                }
            });
        }
    });
    let took = started.elapsed().as_secs_f64();
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(((count - failures.len()) as f64 / took, failures))
}

/// Measures like [`rate`], but fails if a job fails.
pub fn sure_rate(
    clients: usize,
    count: usize,
    job: impl Fn(usize) -> Result<()> + Sync,
) -> Result<f64> {
    match rate(clients, count, job)? {
        (rate, failures) if failures.is_empty() => Ok(rate),
        (_, failures) => Err(failures[0].clone().into()),
    }
}

fn through_service(bench: &Bench, site: &Site, clients: usize, keys: usize) -> Result<f64> {
    let names: Vec<_> = (0..keys).map(|_| bench.names.next()).collect();
    let ask = |index: usize| {
        site.service.expect(&service::gen_key(&names[index], 2048, 0), 201).map(drop)
    };
    let rate = sure_rate(clients, keys, ask)?;
    names.iter().try_for_each(|name| site.state.forget(name))?;
    Ok(rate)
}

fn separate_homes(bench: &Bench, agent: Agent, clients: usize, keys: usize) -> Result<f64> {
    let homes: Result<Vec<_>> = (0..keys).map(|_| Fresh::new(&bench.scratch, 2048)).collect();
    let homes = homes?;
    sure_rate(clients, keys, |index| homes[index].generate(agent).map(drop))
}

/// A home like that of the old service: one keyring, one agent, secret keys without protection.
struct SharedHome(Scratch);

impl SharedHome {
    fn new(bench: &Bench) -> Result<Self> {
        let home = Scratch::new(&bench.scratch)?;
        fs::write(home.path().join("gpg-agent.conf"), "disable-scdaemon\n")?;
        bare::quiet(bare::gpg(home.path()).arg("--gen-key"), bare::unprotected("old").as_bytes())?;
        Ok(Self(home))
    }

    /// Makes keys. Returns the keys made per second, and the percentage of failures.
    #[allow(clippy::cast_precision_loss)]
    fn run(&self, clients: usize, keys: usize) -> Result<(f64, f64)> {
        let parameters = bare::unprotected("old");
        let make = |_: usize| {
            bare::quiet(bare::gpg(self.0.path()).arg("--gen-key"), parameters.as_bytes())
        };
        let (rate, failures) = rate(clients, keys, make)?;
        Ok((rate, 100.0 * failures.len() as f64 / keys as f64))
    }
}
