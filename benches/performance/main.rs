//! `make bench`: measures the cost of keys against bare gpg and against the old way of one shared keyring,
//! with few identities and with many. Writes docs/performance.json, .md and .svg. Needs no root.

#![allow(missing_docs)]

mod bare;
mod document;
mod existing;
mod filling;
mod gen_key;
mod identities;
mod keybox;
mod machine;
mod modes;
mod old;
mod openpgp;
mod options;
mod plot;
mod proof;
mod resources;
mod results;
mod samples;
mod secret_key;
mod service;
mod signer;
mod signing;
mod state;
mod targets;
mod throughput;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use machine::Machine;
use options::Options;
use results::Results;
use service::Service;
use state::{Names, Shelf, State};

/// Any error ends the benchmark with a message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What every part of the benchmark needs.
pub struct Bench {
    pub options: Options,
    pub shelf: Shelf,
    pub names: Names,
    /// The directory for homes that live for one measurement, on the file system of the states.
    pub scratch: PathBuf,
}

/// A state with `size` identities, and a service that runs on it.
pub struct Site {
    pub size: usize,
    pub state: State,
    pub service: Service,
}

impl Bench {
    fn prepare(options: Options) -> Result<Self> {
        state::private_directory(&options.store)?;
        let scratch = options.store.join("tmp");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        state::private_directory(&scratch)?;
        eprintln!("making secret keys in advance");
        let shelf = Shelf::open(&options.store.join("shelf"), 4)?;
        Ok(Self { options, shelf, names: Names::default(), scratch })
    }

    /// Opens the states of all sizes, creates missing identities, and starts a service on each state.
    fn open_sites(&self) -> Result<Vec<Site>> {
        let mut sites = Vec::new();
        for size in &self.options.sizes {
            let state = State::open(&self.options.store.join(format!("s{size}")))?;
            identities::grow(&state, *size, &self.scratch, self.options.cores)?;
            sites.push((*size, state));
        }
        eprintln!("writing what was made to the disk");
        nix::unistd::sync();
        let start = |(size, state)| Ok(Site { size, service: Service::start(&state)?, state });
        sites.into_iter().map(start).collect()
    }
}

fn main() -> Result<()> {
    let bench = Bench::prepare(Options::from_env()?)?;
    let started = Instant::now();
    let sites = bench.open_sites()?;
    let prepared = started.elapsed();
    let mut results = Results::new(Machine::look(&bench.options.store)?);

    type Part = fn(&Bench, &[Site]) -> Result<Vec<samples::Figure>>;
    let parts: [(&str, Part); 9] = [
        ("existing", existing::measure),
        ("gen_key", gen_key::measure),
        ("throughput", throughput::measure),
        ("filling", filling::measure),
        ("resources", resources::measure),
        ("modes", modes::measure),
        ("signing", signing::measure),
        ("signer", signer::measure),
        ("old", old::measure),
    ];
    for (name, part) in parts {
        if bench.options.wants(name) {
            results.add(part(&bench, &sites)?);
        }
    }
    results.finish(&bench.options, prepared, started.elapsed() - prepared);
    drop(sites);
    document::write(&results, &bench.options)?;
    for target in targets::judge(&results) {
        eprintln!("{target}");
    }
    Ok(())
}
