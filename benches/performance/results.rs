//! The figures of one run, and how to look them up.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::options::Options;
use crate::samples::Figure;

/// Everything that was measured, and the machine that it was measured on.
#[derive(Debug)]
pub struct Results {
    pub machine: Machine,
    pub sizes: Vec<usize>,
    /// How long it took to make the states, and to measure.
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

    /// Returns the figure `id` for this number of keys.
    pub fn get(&self, id: &str, keys: Option<usize>) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.id == id && figure.keys == keys)
    }

    /// Returns the figures `id` for all numbers of keys, ascending.
    pub fn all(&self, id: &str) -> Vec<&Figure> {
        let mut found: Vec<_> = self.figures.iter().filter(|figure| figure.id == id).collect();
        found.sort_by_key(|figure| figure.keys);
        found
    }

    /// Returns the largest median of the figures `id`.
    pub fn most(&self, id: &str) -> Option<f64> {
        self.all(id).into_iter().map(Figure::p50).reduce(f64::max)
    }

    /// Returns the figures `id` for both ways to run bare gpg.
    pub fn all_ways(&self, id: &str) -> Vec<&Figure> {
        let ways = ["daemon", "autostart"].map(|way| self.get(&format!("{id}/{way}"), None));
        ways.into_iter().flatten().collect()
    }

    /// Returns the figure `id` for the faster of the two ways to run bare gpg.
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
