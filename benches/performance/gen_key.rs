//! Measures how long a new key takes: through the service, with and without a secret key in the pool, and
//! with bare gpg in a fresh home.

use crate::bare::{Agent, Fresh};
use crate::samples::{Contender, Figure, alternate, timed};
use crate::{Bench, Result, Site, service};

/// Key lengths in bits, and their rounds. The time of the search for primes varies much, so the shortest
/// length gets the most rounds.
const LENGTHS: [(u16, usize); 3] = [(2048, 60), (3072, 24), (4096, 16)];

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (bits, rounds) in LENGTHS {
        let mut contenders = Vec::new();
        for site in sites {
            let keys = Some(site.size);
            let hit = move || pool_hit(bench, site, bits);
            contenders.push(Contender::new(format!("hit/{bits}"), keys, "ms", hit));
            let empty = move || pool_empty(bench, site, bits);
            contenders.push(Contender::new(format!("empty/{bits}"), keys, "ms", empty));
        }
        for agent in Agent::ALL {
            let way = agent.name();
            let generate = move || Fresh::new(&bench.scratch, bits)?.generate(agent);
            contenders.push(Contender::new(format!("bare/{bits}/{way}"), None, "ms", generate));
            let bind = move || {
                Fresh::with_secret_key(&bench.scratch, &bench.shelf.any(bits)?)?.generate(agent)
            };
            contenders.push(Contender::new(format!("grip/{bits}/{way}"), None, "ms", bind));
        }
        let what = format!("gen_key, RSA-{bits}");
        figures.extend(alternate(&what, bench.options.rounds(rounds), contenders)?);
    }
    Ok(figures)
}

/// Measures a request that finds a secret key in the pool, in milliseconds.
pub fn pool_hit(bench: &Bench, site: &Site, bits: u16) -> Result<f64> {
    let name = bench.names.next();
    bench.shelf.lend(&site.state, bits)?;
    let request = service::gen_key(&name, bits, 0);
    let took = timed(|| site.service.expect(&request, 201))?;
    bench.shelf.take_back(&site.state, &name, bits)?;
    Ok(took)
}

/// Measures a request that finds the pool empty, in milliseconds.
fn pool_empty(bench: &Bench, site: &Site, bits: u16) -> Result<f64> {
    let name = bench.names.next();
    let request = service::gen_key(&name, bits, 0);
    let took = timed(|| site.service.expect(&request, 201))?;
    site.state.forget(&name)?;
    Ok(took)
}
