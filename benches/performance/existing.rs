//! Measures requests for keys that exist: their latency and their rate, beside a request
//! that does nothing (`/ping`). Each key was requested once before, as on a host in use:
//! a key that has not been read for long costs disk reads first.

use crate::samples::{Contender, Figure, alternate, timed};
use crate::service::{self, Service};
use crate::throughput::sure_rate;
use crate::{Bench, Result, Site, identities};

/// The number of requests in one round of the four clients.
const REQUESTS: usize = 4000;
const CLIENTS: usize = 4;
const ROUNDS: usize = 8;
/// The number of keys in each state that are requested.
const SAMPLE: usize = 20_000;
const LATENCY_ROUNDS: usize = 1500;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let first = sites.first().ok_or("no state")?;
    let ours = bench.names.next();
    first.service.expect(&service::gen_key(&ours, 2048, 0), 201)?;
    let samples: Result<Vec<_>> = sites.iter().map(|site| Sample::take(site, &ours)).collect();
    let samples = samples?;
    // Send `/ping` to a process of its own: a service with two requests per round would
    // be warmer than the others.
    let other = Service::start(&first.state)?;
    let ping = service::get("/ping");
    let count = bench.options.rounds(REQUESTS).min(REQUESTS);

    let (mut latencies, mut rates) = (Vec::new(), Vec::new());
    for (site, sample) in sites.iter().zip(&samples) {
        let keys = Some(site.size);
        let one = move || {
            let request = sample.request();
            timed(|| site.service.expect(&request, 200))
        };
        latencies.push(Contender::new("exists", keys, "ms", one));
        let many = move || {
            let requests: Vec<_> = (0..count).map(|_| sample.request()).collect();
            sure_rate(CLIENTS, count, |index| site.service.expect(&requests[index], 200).map(drop))
        };
        rates.push(Contender::new("exists/rate", keys, "requests/s", many));
    }
    let one = || timed(|| other.expect(&ping, 200));
    latencies.push(Contender::new("ping", None, "ms", one));
    let many = || sure_rate(CLIENTS, count, |_| other.expect(&ping, 200).map(drop));
    rates.push(Contender::new("ping/rate", None, "requests/s", many));

    let rounds = bench.options.rounds(LATENCY_ROUNDS);
    let mut figures = alternate("gen_key, the key exists", rounds, latencies)?;
    let rounds = bench.options.rounds(ROUNDS);
    figures.extend(alternate("gen_key, the key exists, 4 clients", rounds, rates)?);
    first.state.forget(&ours)?;
    Ok(figures)
}

/// The names that are requested.
struct Sample(Vec<String>);

impl Sample {
    /// Chooses names and requests each key once. A state without identities uses the name `only`.
    fn take(site: &Site, only: &str) -> Result<Self> {
        let any = |_| identities::name_email(rand::random_range(0..site.size));
        let names = match site.size {
            0 => vec![only.to_owned()],
            size => (0..SAMPLE.min(size)).map(any).collect(),
        };
        let ask = |index: usize| {
            site.service.expect(&service::gen_key(&names[index], 2048, 0), 200).map(drop)
        };
        sure_rate(CLIENTS, names.len(), ask)?;
        Ok(Self(names))
    }

    fn request(&self) -> Vec<u8> {
        service::gen_key(&self.0[rand::random_range(0..self.0.len())], 2048, 0)
    }
}
