//! Samples, their percentiles, and how they are taken: all contenders of a comparison run in turn, so that
//! other load on the machine affects all of them alike.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;

/// The samples of one measurement.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of the measurement, like `hit/2048`.
    pub id: String,
    /// The number of identities in the state, or of keys in the keyring; `None` if neither matters.
    pub keys: Option<usize>,
    /// The unit: `ms`, `keys/s`, `MB` and so on.
    pub unit: &'static str,
    /// The samples, ascending.
    values: Vec<f64>,
}

impl Figure {
    pub fn new(
        id: impl Into<String>,
        keys: Option<usize>,
        unit: &'static str,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        Self { id: id.into(), keys, unit, values }
    }

    pub fn runs(&self) -> usize {
        self.values.len()
    }

    /// Returns a percentile by nearest rank. The median of an even number of samples is
    /// the mean of the middle two.
    pub fn percentile(&self, percent: usize) -> f64 {
        let count = self.values.len();
        let at = |index: usize| self.values.get(index).copied().unwrap_or(f64::NAN);
        if percent == 50 && count % 2 == 0 && count > 0 {
            return (at(count / 2 - 1) + at(count / 2)) / 2.0;
        }
        at((count * percent).div_ceil(100).saturating_sub(1))
    }

    pub fn p50(&self) -> f64 {
        self.percentile(50)
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    pub fn json(&self) -> Value {
        let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
        json!({
            "id": self.id,
            "keys": self.keys,
            "unit": self.unit,
            "runs": self.runs(),
            "p50": round(self.p50()),
            "p95": round(self.percentile(95)),
            "p99": round(self.percentile(99)),
            "min": round(self.percentile(0)),
            "max": round(self.percentile(100)),
        })
    }
}

/// One side of a comparison. `measure` does the work once and returns the sample.
pub struct Contender<'a> {
    id: String,
    keys: Option<usize>,
    unit: &'static str,
    measure: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(
        id: impl Into<String>,
        keys: Option<usize>,
        unit: &'static str,
        measure: impl FnMut() -> Result<f64> + 'a,
    ) -> Self {
        Self { id: id.into(), keys, unit, measure: Box::new(measure) }
    }
}

/// Measures all contenders once per round, in a new random order each round: the one before may leave caches
/// warm or the disk busy. An additional first round warms up and is not counted.
pub fn alternate(
    what: &str,
    rounds: usize,
    mut contenders: Vec<Contender<'_>>,
) -> Result<Vec<Figure>> {
    let started = Instant::now();
    eprint!("{what}: {rounds} rounds of {} …", contenders.len());
    let count = contenders.len();
    let mut values = vec![Vec::with_capacity(rounds); count];
    for round in 0..=rounds {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, rand::random_range(0..=last));
        }
        for index in order {
            let contender = &mut contenders[index];
            let value = (contender.measure)().map_err(|e| format!("{}: {e}", contender.id))?;
            if round > 0 {
                values[index].push(value);
            }
        }
    }
    eprintln!(" {:.0} s", started.elapsed().as_secs_f64());
    let figures = contenders.into_iter().zip(values);
    Ok(figures.map(|(c, values)| Figure::new(c.id, c.keys, c.unit, values)).collect())
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns how long `work` took, in milliseconds.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(milliseconds(started.elapsed()))
}
