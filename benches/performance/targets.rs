//! The performance targets of the service, and whether they were met. A target is a ratio to something
//! measured beside it where possible.

use std::fmt;

use serde_json::{Value, json};

use crate::results::Results;

/// The number of identities up to which the growth targets hold.
const GROWTH_KEYS: usize = 100_000;

/// A performance target.
#[derive(Debug)]
pub struct Target {
    pub name: String,
    /// The measured value; `None` if it was not measured.
    pub value: Option<f64>,
    pub limit: f64,
    pub at_least: bool,
    pub unit: &'static str,
}

impl Target {
    pub fn verdict(&self) -> &'static str {
        match self.value {
            None => "not measured",
            Some(value) if self.at_least && value >= self.limit => "PASS",
            Some(value) if !self.at_least && value <= self.limit => "PASS",
            Some(_) => "FAIL",
        }
    }

    pub fn wanted(&self) -> String {
        format!("{} {}{}", if self.at_least { "≥" } else { "≤" }, self.limit, self.unit)
    }

    pub fn found(&self) -> String {
        self.value.map_or("–".into(), |value| format!("{value:.2}{}", self.unit))
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value.map(|value| (value * 1000.0).round() / 1000.0),
            "limit": self.limit, "at_least": self.at_least, "verdict": self.verdict(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}  {}: {}, wanted {}", self.verdict(), self.name, self.found(), self.wanted())
    }
}

/// Returns all targets with their measured values.
pub fn judge(results: &Results) -> Vec<Target> {
    let median = |id: &str| results.all(id).first().map(|figure| figure.p50());
    let faster = |id: &str| results.faster(id).map(|figure| figure.p50());
    let bound = results.all_ways("bound/2").into_iter().map(|figure| figure.p50()).reduce(f64::max);
    let quotient = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let p95 = |id: &str| results.all(id).first().map(|figure| figure.percentile(95));
    let at_most = |name: &str, value, limit, unit| Target {
        name: name.into(),
        value,
        limit,
        at_least: false,
        unit,
    };
    let at_least = |name: &str, value, limit, unit| Target {
        at_least: true,
        ..at_most(name, value, limit, unit)
    };

    let mut targets = Vec::new();
    for bits in [2048, 3072, 4096] {
        let ratio = quotient(median(&format!("hit/{bits}")), faster(&format!("grip/{bits}")));
        let name = format!("RSA-{bits} from the pool, beside bare gpg with Key-Grip");
        targets.push(at_most(&name, ratio, 1.4, "×"));
    }
    for (bits, limit) in [(4096, 8.0), (2048, 3.0)] {
        let ratio = quotient(faster(&format!("bare/{bits}")), median(&format!("hit/{bits}")));
        let name = format!("RSA-{bits} from the pool, how much faster than bare gpg");
        targets.push(at_least(&name, ratio, limit, "×"));
    }
    let rate = median("rate/2");
    targets.extend([
        at_least(
            "empty pool, 2 clients, beside gpg in homes of their own",
            quotient(rate, bound),
            0.9,
            "×",
        ),
        at_least(
            "empty pool, 2 clients, beside the old way",
            quotient(rate, median("shared/2")),
            1.8,
            "×",
        ),
        at_most("the key exists, median", median("exists"), 0.5, " ms"),
        at_least("the key exists, 4 clients", median("exists/rate"), 5000.0, " requests/s"),
        at_most(
            "p95 from the pool while it is filled",
            quotient(p95("filling/hit"), p95("quiet/hit")),
            2.0,
            "×",
        ),
        at_most("memory of serve under load", results.most("memory/load"), 16.0, " MB"),
        at_most("exec to READY=1", results.most("activation/ready"), 10.0, " ms"),
    ]);
    for (bits, times) in [(2048, 4.0), (4096, 5.0)] {
        let fastest = |id: &str| median(&format!("{id}/{bits}/8"));
        for (id, keys) in
            [("signer/cpu", "one key"), ("signer/cpu of many", "as many keys as clients")]
        {
            let limit = median(&format!("openssl/{bits}")).map(|time| 1.5 * time + 0.3);
            targets.push(at_most(
                &format!(
                    "RSA-{bits}, {keys}, processor time of the signer a signature, beside 1.5 × openssl speed + 0.3 ms"
                ),
                quotient(median(&format!("{id}/{bits}")), limit),
                1.0,
                "×",
            ));
        }
        targets.extend([
            at_least(
                &format!("RSA-{bits}, 8 clients, signer beside the agent"),
                quotient(fastest("signer"), fastest("agent")),
                times,
                "×",
            ),
            at_most(
                &format!("RSA-{bits}, 64 clients, what the processors could do beside what the signer does"),
                median(&format!("signer/limit/{bits}")),
                1.3,
                "×",
            ),
            at_most(
                &format!("RSA-{bits}, memory of the signer with 64 clients"),
                median(&format!("signer/memory/{bits}")),
                16.0,
                " MB",
            ),
        ]);
    }
    for (id, what) in [
        ("hit/2048", "RSA-2048 from the pool"),
        ("empty/2048", "RSA-2048, empty pool"),
        ("exists", "the key exists"),
        ("memory/load", "memory under load"),
        ("activation/ready", "exec to READY=1"),
        ("sign", "signing by the agent"),
        ("signer/sign", "signing by the signer"),
    ] {
        let (keys, ratio) = growth(results, id, false);
        targets.push(at_most(&format!("growth to {keys} keys: {what}"), ratio, 1.2, "×"));
    }
    for (id, what) in
        [("rate/2", "empty pool, 2 clients"), ("exists/rate", "the key exists, 4 clients")]
    {
        let (keys, ratio) = growth(results, id, true);
        targets.push(at_most(
            &format!("growth to {keys} keys: {what}, time a key"),
            ratio,
            1.2,
            "×",
        ));
    }
    targets
}

/// Returns the largest measured number of keys, in words, and the ratio of the time with that many keys to
/// the time with the fewest. The ratio is `None` if there is only one size.
fn growth(results: &Results, id: &str, is_rate: bool) -> (String, Option<f64>) {
    let mut found = results.all(id);
    found.retain(|figure| figure.keys.is_some_and(|keys| keys <= GROWTH_KEYS + 1));
    let (Some(few), Some(many)) = (found.first(), found.last()) else {
        return ("many".into(), None);
    };
    let ratio = if is_rate { few.p50() / many.p50() } else { many.p50() / few.p50() };
    let keys = many.keys.unwrap_or_default() / 10 * 10; // signing has one key more
    (crate::document::thousands(keys), (few.keys != many.keys).then_some(ratio))
}
