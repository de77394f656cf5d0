//! Draws docs/performance.svg: the latency of gen_key against the number of keys, on logarithmic axes. Shows
//! medians with whiskers up to p95. Writes the SVG without a library.

use std::fmt::Write;

use crate::document::{number, thousands};
use crate::results::Results;
use crate::samples::Figure;

const WIDTH: f64 = 790.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;

/// The lines: figure, label, colour, dashes.
const LINES: [(&str, &str, &str, &str); 5] = [
    ("old/generate", "old way: new key", "#b03030", "7 4"),
    ("empty/2048", "new key, empty pool", "#b07a10", ""),
    ("hit/2048", "new key, from the pool", "#1a6fb0", ""),
    ("old/find", "old way: find a key", "#b06080", "7 4"),
    ("exists", "the key exists", "#2a8a4a", ""),
];

/// The place of zero keys on the logarithmic axis, which has no zero.
const ZERO: f64 = 100.0;

struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    #[allow(clippy::cast_precision_loss)]
    fn x(&self, keys: usize) -> f64 {
        let log = (keys as f64).max(ZERO).log10();
        LEFT + (log - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, milliseconds: f64) -> f64 {
        let share = (milliseconds.log10() - self.y.0) / (self.y.1 - self.y.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

pub fn svg(results: &Results) -> String {
    let lines = LINES.map(|(id, label, colour, dashes)| (results.all(id), label, colour, dashes));
    let most = results.sizes.last().copied().unwrap_or_default().max(1000);
    #[allow(clippy::cast_precision_loss)]
    let x = (ZERO.log10(), (most as f64).log10());
    let values = || lines.iter().flat_map(|line| &line.0);
    let low = values().map(|figure| figure.p50()).reduce(f64::min).unwrap_or(0.1);
    let high = values().map(|figure| figure.percentile(95)).reduce(f64::max).unwrap_or(1000.0);
    let axes = Axes { x, y: (low.log10().floor(), high.log10().ceil()) };

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Latency of gen_key against the number of keys</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" fill=\"#222\">Latency of gen_key (RSA-2048) against \
         the number of keys</text>\n"
    );
    grid(&mut out, &axes, most);
    let mut taken = Vec::new();
    for (figures, label, colour, dashes) in &lines {
        draw(&mut out, &axes, figures, colour, dashes);
        if let Some(last) = figures.last() {
            let at = free_height(axes.y(last.p50()) + 4.0, &mut taken);
            let (x, text) = (WIDTH - RIGHT + 12.0, number(last.p50()));
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{at:.1}\" fill=\"{colour}\">{label}, {text} ms</text>"
            );
        }
    }
    out + "</svg>\n"
}

/// Returns the first height from `wanted` downwards at which a label touches no other.
fn free_height(wanted: f64, taken: &mut Vec<f64>) -> f64 {
    let mut at = wanted;
    while taken.iter().any(|other: &f64| (other - at).abs() < 15.0) {
        at += 5.0;
    }
    taken.push(at);
    at
}

fn grid(out: &mut String, axes: &Axes, most: usize) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut exponent = axes.y.0;
    while exponent <= axes.y.1 {
        let (value, y) = (10_f64.powf(exponent), axes.y(10_f64.powf(exponent)));
        let label = if value < 1.0 { format!("{value}") } else { format!("{value:.0}") };
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{label} ms</text>",
            LEFT - 8.0,
            y + 4.0
        );
        exponent += 1.0;
    }
    let mut keys = 1000;
    let mut ticks = vec![0];
    while keys <= most {
        ticks.push(keys);
        keys *= 10;
    }
    for keys in ticks {
        let x = axes.x(keys);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#eee\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{}</text>",
            bottom + 18.0,
            thousands(keys)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">keys on the sign host; medians, \
         whiskers to p95</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 14.0
    );
}

fn draw(out: &mut String, axes: &Axes, figures: &[&Figure], colour: &str, dashes: &str) {
    let mut points = String::new();
    for figure in figures {
        let x = axes.x(figure.keys.unwrap_or_default());
        let (y, top) = (axes.y(figure.p50()), axes.y(figure.percentile(95)));
        let _ = write!(points, "{x:.1},{y:.1} ");
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{top:.1}\" stroke=\"{colour}\" \
             opacity=\"0.6\"/>\n<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
        );
    }
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"/>",
        points.trim_end()
    );
}
