//! Measures whether filling the pool slows down requests that take from it: pool hits on a quiet machine and
//! while `fill-pool` runs, in turn.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::gen_key::pool_hit;
use crate::samples::Figure;
use crate::service::{mode, terminate};
use crate::{Bench, Result, Site};

const ROUNDS: usize = 8;
/// The number of requests in one round.
const HITS: usize = 12;

/// A running `fill-pool`, which is terminated when this value is dropped.
struct Filler(Child);

impl Drop for Filler {
    fn drop(&mut self) {
        terminate(&mut self.0);
    }
}

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let site = sites.first().ok_or("no state")?;
    let rounds = bench.options.rounds(ROUNDS);
    eprintln!("pool hits while the pool is filled: {rounds} rounds");
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..HITS {
            quiet.push(pool_hit(bench, site, 2048)?);
        }
        let mut filler = mode(&site.state, ["fill-pool"]);
        filler.env("COPR_KEYGEN_POOL", "4096:100").stderr(Stdio::null());
        let filler = Filler(filler.spawn()?);
        sleep(Duration::from_millis(300));
        for _ in 0..HITS {
            busy.push(pool_hit(bench, site, 2048)?);
        }
        drop(filler);
        for entry in std::fs::read_dir(site.state.pool(4096))? {
            std::fs::remove_dir_all(entry?.path())?;
        }
    }
    let figure = |id: &str, values| Figure::new(id, Some(site.size), "ms", values);
    Ok(vec![figure("quiet/hit", quiet), figure("filling/hit", busy)])
}
