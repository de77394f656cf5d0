//! A request for a key that exists: how long it takes, and how many of them a second, beside a request
//! that does nothing (`/ping`).

use crate::samples::{Contender, Figure, alternate, timed};
use crate::service::{self, Service};
use crate::throughput::sure_rate;
use crate::{Bench, Result, Site, identities};

/// Requests of one round of four clients.
const REQUESTS: usize = 4000;
const CLIENTS: usize = 4;
const ROUNDS: usize = 8;
const LATENCY_ROUNDS: usize = 1500;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let first = sites.first().ok_or("no state")?;
    let ours = bench.names.next();
    first.service.expect(&service::gen_key(&ours, 2048, 0), 201)?;
    // A random one of all, so that it is not always the same that is in the caches.
    let request = |site: &Site| {
        let name = match site.size {
            0 => ours.clone(),
            size => identities::name_email(rand::random_range(0..size)),
        };
        service::gen_key(&name, 2048, 0)
    };
    // A process of its own: one that is asked twice a round is warmer than the others.
    let other = Service::start(&first.state)?;
    let ping = service::get("/ping");
    let count = bench.options.rounds(REQUESTS).min(REQUESTS);

    let (mut latencies, mut rates) = (Vec::new(), Vec::new());
    for site in sites {
        let (keys, request) = (Some(site.size), &request);
        let one = move || {
            let request = request(site);
            timed(|| site.service.expect(&request, 200))
        };
        latencies.push(Contender::new("exists", keys, "ms", one));
        let many = move || {
            let requests: Vec<_> = (0..count).map(|_| request(site)).collect();
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
