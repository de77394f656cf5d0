//! All figures of one run, and how to find one again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::options::Options;
use crate::samples::Figure;

/// Everything that was measured, and where.
#[derive(Debug)]
pub struct Results {
    pub machine: Machine,
    pub sizes: Vec<usize>,
    /// How long making the states took, and measuring.
    pub prepared: Duration,
    pub measured: Duration,
    figures: Vec<Figure>,
}

impl Results {
    pub fn new(machine: Machine) -> Self {
        let zero = Duration::ZERO;
        Self { machine, sizes: Vec::new(), prepared: zero, measured: zero, figures: Vec::new() }
    }

    pub fn add(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    pub fn finish(&mut self, options: &Options, prepared: Duration, measured: Duration) {
        self.sizes.clone_from(&options.sizes);
        self.prepared = prepared;
        self.measured = measured;
        self.machine.load_after = crate::machine::load();
    }

    /// The figure `id` with this number of keys.
    pub fn get(&self, id: &str, keys: Option<usize>) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.id == id && figure.keys == keys)
    }

    /// The figure `id` for every number of keys, ascending.
    pub fn all(&self, id: &str) -> Vec<&Figure> {
        let mut found: Vec<_> = self.figures.iter().filter(|figure| figure.id == id).collect();
        found.sort_by_key(|figure| figure.keys);
        found
    }

    /// The largest median of a figure.
    pub fn most(&self, id: &str) -> Option<f64> {
        self.all(id).into_iter().map(Figure::p50).reduce(f64::max)
    }

    /// Both ways to run bare gpg.
    pub fn all_ways(&self, id: &str) -> Vec<&Figure> {
        let ways = ["daemon", "autostart"].map(|way| self.get(&format!("{id}/{way}"), None));
        ways.into_iter().flatten().collect()
    }

    /// The faster of the two ways to run bare gpg.
    pub fn faster(&self, id: &str) -> Option<&Figure> {
        self.all_ways(id).into_iter().min_by(|a, b| a.p50().total_cmp(&b.p50()))
    }

    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine.json(),
            "preparing_seconds": self.prepared.as_secs(),
            "measuring_seconds": self.measured.as_secs(),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "targets": crate::targets::judge(self).iter().map(|t| t.json()).collect::<Vec<_>>(),
        })
    }
}
