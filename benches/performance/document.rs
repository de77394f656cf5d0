//! Writes docs/performance.json, .md and .svg. All of the text is generated, so that
//! prose and numbers are of the same run.

use std::fs;

use crate::Result;
use crate::options::Options;
use crate::plot;
use crate::results::Results;
use crate::samples::Figure;
use crate::signer;
use crate::targets;

pub fn write(results: &Results, options: &Options) -> Result<()> {
    fs::create_dir_all(&options.out)?;
    let json = serde_json::to_string_pretty(&results.json())? + "\n";
    for (name, text) in [
        ("performance.json", json),
        ("performance.md", markdown(results)),
        ("performance.svg", plot::svg(results)),
    ] {
        fs::write(options.out.join(name), text)?;
        eprintln!("wrote {}", options.out.join(name).display());
    }
    Ok(())
}

fn markdown(results: &Results) -> String {
    [
        "# Performance\n\nWritten by `make bench`; every number is of one run on one machine. What is \
         compared was measured in turn, one of each a round in an order left to chance, so that whatever else the machine did met \
         all of them alike: trust the ratios more than the milliseconds. p50, p95 and p99 are nearest \
         ranks of that many runs. [performance.json](performance.json) has all of it.\n\n\
         ![Latency of gen_key against the number of keys](performance.svg)\n"
            .into(),
        judged(results),
        new_keys(results),
        by_size(results),
        rates(results),
        existing(results),
        signing(results),
        old_way(results),
        modes(results),
        resources(results),
        place(results),
    ]
    .join("\n")
}

fn judged(results: &Results) -> String {
    let rows = targets::judge(results)
        .iter()
        .map(|t| vec![t.verdict().into(), t.name.clone(), t.found(), t.wanted()])
        .collect();
    section("Targets", "", &["", "target", "found", "wanted"], rows)
}

fn new_keys(results: &Results) -> String {
    let mut rows = Vec::new();
    for bits in [2048, 3072, 4096] {
        let few = |id: &str| results.all(&format!("{id}/{bits}")).first().copied();
        let faster = |id: &str| results.faster(&format!("{id}/{bits}"));
        let generating = faster("bare").map(Figure::p50);
        for (what, figure) in [
            ("`POST /gen_key`, from the pool", few("hit")),
            ("`POST /gen_key`, empty pool", few("empty")),
            ("bare gpg", faster("bare")),
            ("bare gpg with `Key-Grip`", faster("grip")),
        ] {
            let Some(figure) = figure else { continue };
            let mut row = vec![format!("RSA-{bits}"), what.into()];
            row.extend(percentiles(figure));
            row.push(generating.map_or("–".into(), |bare| format!("{:.2}×", figure.p50() / bare)));
            rows.push(row);
        }
    }
    section(
        "A new key",
        "One client, fewest keys, in milliseconds. From the pool: a secret key that `fill-pool` made \
         waits there, and gpg only binds the identity to it, what `Key-Grip` does by hand. Bare gpg works \
         in a fresh home with passphrase and `s2k-count 65536`, without syncs to the disk and without \
         waiting for its agent's end; of `gpg-agent --daemon -- gpg` and gpg that starts its agent, the \
         faster counts.",
        &["key", "", "p50", "p95", "p99", "runs", "beside bare gpg"],
        rows,
    )
}

fn by_size(results: &Results) -> String {
    let mut rows = Vec::new();
    for (what, id) in [
        ("RSA-2048 from the pool", "hit/2048"),
        ("RSA-3072 from the pool", "hit/3072"),
        ("RSA-4096 from the pool", "hit/4096"),
        ("RSA-2048, empty pool", "empty/2048"),
        ("RSA-3072, empty pool", "empty/3072"),
        ("RSA-4096, empty pool", "empty/4096"),
        ("the key exists", "exists"),
        ("the certificate of one key", "pubkey"),
    ] {
        rows.extend(size_rows(what, &results.all(id)));
    }
    section(
        "With few keys and with many",
        "The same requests, one service per state, asked in turn; in milliseconds. The search for primes \
         takes a different time with every key, which is most of the difference between two rows of an \
         empty pool.",
        &["", "keys", "p50", "p95", "p99", "runs", "growth"],
        rows,
    )
}

fn rates(results: &Results) -> String {
    let mut rows = Vec::new();
    for clients in [1, 2, 4] {
        let mut add = |what: String, figure: &Figure, failed: String| {
            rows.push(vec![clients.to_string(), what, number(figure.p50()), failed]);
        };
        for figure in results.all(&format!("rate/{clients}")) {
            let keys = thousands(figure.keys.unwrap_or_default());
            add(format!("service, {keys} keys"), figure, "0 %".into());
        }
        let ways = results.all_ways(&format!("bound/{clients}"));
        if let Some(best) = ways.into_iter().max_by(|a, b| a.p50().total_cmp(&b.p50())) {
            add("bare gpg, each in a home of its own".into(), best, "0 %".into());
        }
        if let Some(figure) = results.get(&format!("shared/{clients}"), None) {
            let failed = results.get(&format!("shared/{clients}/failed"), None);
            let failed = failed.map_or("–".into(), |f| format!("{:.0} %", f.mean()));
            add("bare gpg, all in one home (the old way)".into(), figure, failed);
        }
    }
    section(
        "New keys a second, empty pool",
        "RSA-2048. Homes of their own are the bound: nothing but gpg on all cores. The old way is one \
         home with one keyring and one agent, without passphrases; what failed there is not counted as \
         made.",
        &["clients", "", "keys/s", "failed"],
        rows,
    )
}

fn existing(results: &Results) -> String {
    let mut rows = size_rows("`POST /gen_key`, ms", &results.all("exists"));
    rows.extend(size_rows("`GET /ping`, ms", &results.all("ping")));
    rows.extend(size_rows("`POST /gen_key`, 4 clients, requests/s", &results.all("exists/rate")));
    rows.extend(size_rows("`GET /ping`, 4 clients, requests/s", &results.all("ping/rate")));
    section(
        "The key exists",
        "Every request on a connection of its own. The clients run on the same cores as the service.",
        &["", "keys", "p50", "p95", "p99", "runs", "growth"],
        rows,
    )
}

fn signing(results: &Results) -> String {
    let mut rows = Vec::new();
    for bits in signer::BITS {
        let median = |id: String| results.all(&id).first().map(|figure| figure.p50());
        let cell = |value: Option<f64>| value.map_or("–".into(), number);
        let failed =
            results.all(&format!("agent/failed/{bits}")).first().map(|figure| figure.mean());
        for clients in signer::CLIENTS {
            let ours = median(format!("signer/{bits}/{clients}"));
            let agent = median(format!("agent/{bits}/{clients}"));
            let Some(times) = ours.zip(agent).map(|(ours, agent)| ours / agent) else { continue };
            rows.push(vec![
                format!("RSA-{bits}, clients: {clients}, signatures/s"),
                cell(ours),
                cell(agent),
                format!("{times:.1}×"),
            ]);
        }
        let openssl = median(format!("openssl/{bits}"));
        for (what, ours, other) in [
            ("8 clients and 8 keys, signatures/s", median(format!("signer/{bits}/8/8 keys")), None),
            (
                "8 clients, processor time a signature, ms",
                median(format!("signer/cpu/{bits}")),
                None,
            ),
            (
                "8 clients and 8 keys, processor time a signature, ms",
                median(format!("signer/cpu of many/{bits}")),
                None,
            ),
            ("a signature by `openssl speed`, ms", openssl, None),
            ("memory with 64 clients, MB", median(format!("signer/memory/{bits}")), None),
            ("failed, %", median(format!("signer/{bits}/64")).map(|_| 0.0), failed),
        ] {
            if ours.is_some() {
                rows.push(vec![
                    format!("RSA-{bits}, {what}"),
                    cell(ours),
                    cell(other),
                    String::new(),
                ]);
            }
        }
    }
    for figure in results.all("signer/sign") {
        let keys = thousands(figure.keys.unwrap_or_default());
        let what = format!("RSA-2048, one client, {keys} keys, ms a signature");
        rows.push(vec![what, number(figure.p50()), String::new(), String::new()]);
    }
    section(
        "Signing",
        "`copr-keygen signd` beside the agent of obs-signd. Its clients send one digest over a connection each, from threads on \
         the same cores. The agent is asked as obs-signd does it, by a process for each signature; with 64 clients it is \
         asked by 64 processes at once, of which obs-signd lets in ten.",
        &["", "copr-keygen signd", "the agent", ""],
        rows,
    )
}

fn old_way(results: &Results) -> String {
    let mut rows = Vec::new();
    for (what, id) in [
        ("generate one", "old/generate"),
        ("prolong one", "old/prolong"),
        ("find one", "old/find"),
        ("export one", "old/export"),
        ("list all", "old/list"),
        ("sign, as obs-signd does", "old/sign"),
    ] {
        rows.extend(size_rows(what, &results.all(id)));
    }
    rows.extend(size_rows("this service: sign, as obs-signd does", &results.all("sign")));
    section(
        "The old way",
        "Bare gpg on one keyring that all keys share, RSA-2048 without protection, in milliseconds. Its \
         trust database is never checked here, which in daily use it was.",
        &["", "keys", "p50", "p95", "p99", "runs", "growth"],
        rows,
    )
}

fn modes(results: &Results) -> String {
    let mut rows = Vec::new();
    for (what, id) in [
        ("`prolong`, nothing due, ms", "prolong/nothing"),
        ("its peak memory, MB", "prolong/memory"),
        ("`list --json`, ms", "list"),
        ("its peak memory, MB", "list/memory"),
        ("`check`, ms", "check"),
        ("`prolong`, a key that is due, ms × cores", "prolong/due"),
        ("its processor time, ms", "prolong/processor"),
        ("bare `--quick-set-expire` in a home of its own, ms × cores", "prolong/bare"),
    ] {
        rows.extend(size_rows(what, &results.all(id)));
    }
    section(
        "Modes that look at every key",
        "A key that is due is listed, exported, given the new expiry, merged with its old self-signatures, \
         listed again and compared, synced and renamed into place.",
        &["", "keys", "p50", "p95", "p99", "runs", "growth"],
        rows,
    )
}

fn resources(results: &Results) -> String {
    let mut rows = Vec::new();
    for (what, id) in [
        ("resident memory at rest, MB", "memory/rest"),
        ("peak while 4 clients make keys, MB", "memory/load"),
        ("gpg processes at once meanwhile", "memory/jobs"),
        ("cold: exec to `READY=1`, ms", "activation/ready"),
        ("cold: exec to the first byte of an answer, ms", "activation/answer"),
        ("for comparison: `--version`, ms", "activation/version"),
        ("for comparison: `/bin/true`, ms", "activation/true"),
        ("pool hit on a quiet machine, ms", "quiet/hit"),
        ("pool hit while `fill-pool` makes RSA-4096, ms", "filling/hit"),
    ] {
        rows.extend(size_rows(what, &results.all(id)));
    }
    section(
        "Memory, waking up, filling the pool",
        "Waking up is what the first request after a rest pays on top: the socket is open, a client has \
         sent its request, the service is started (through a shell, which counts).",
        &["", "keys", "p50", "p95", "p99", "runs", "growth"],
        rows,
    )
}

fn place(results: &Results) -> String {
    let m = &results.machine;
    let (minutes, prepared) = (results.measured.as_secs().div_ceil(60), results.prepared.as_secs());
    format!(
        "## Where, and how to do it again\n\n\
         | | |\n|---|---|\n| machine | {}, {} cores, {} GiB |\n| file system | {} |\n\
         | system | {}, Linux {} |\n| GnuPG | {}, libgcrypt {} |\n| compiler | {} |\n\
         | copr-keygen | {} |\n| date | {} |\n| load before and after | {} / {} |\n\n\
         `make bench` needs GnuPG and Rust and no root. This run made its states in {prepared} s and \
         measured for {minutes} min. The states (real Ed25519 keys with passphrases, one home each) stay \
         in `target/bench`, about 40 kB a key, so that the next run begins at once. Variables of the \
         environment:\n\n\
         | variable | default | |\n|---|---|---|\n\
         | `BENCH_KEYS` | `0 1000 10000 100000` | sizes of the states; a thousand take a second or two \
         | \n| `BENCH_FULL` | | `1` adds 1,000,000 |\n\
         | `BENCH_RUNS` | `1` | factor for the number of runs |\n\
         | `BENCH_STORE` | `target/bench` | where the states are; an absolute path of at most 50 bytes, as sockets of \
         gpg-agent are made there |\n\
         | `BENCH_OUT` | `docs` | where these documents go |\n\
         | `BENCH_ONLY` | | parts: existing gen_key throughput filling resources modes signing signer old |\n",
        m.processor, m.cores, m.memory_gib, m.file_system, m.system, m.kernel, m.gpg, m.libgcrypt,
        m.rustc, m.version, m.date, m.load_before, m.load_after,
    )
    .replace("| \n|", "|\n|")
}

/// Returns one row per number of keys. The last column is the growth over the first row.
fn size_rows(what: &str, figures: &[&Figure]) -> Vec<Vec<String>> {
    let first = figures.first().map_or(f64::NAN, |figure| figure.p50());
    let row = |figure: &&Figure| {
        let mut row = vec![what.to_owned(), figure.keys.map_or(String::new(), thousands)];
        row.extend(percentiles(figure));
        let grew = figures.len() > 1;
        row.push(if grew { format!("{:.2}×", figure.p50() / first) } else { String::new() });
        row
    };
    figures.iter().map(row).collect()
}

fn percentiles(figure: &Figure) -> Vec<String> {
    let mut cells: Vec<_> = [50, 95, 99].map(|percent| number(figure.percentile(percent))).into();
    cells.push(figure.runs().to_string());
    cells
}

fn section(title: &str, about: &str, head: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return format!("## {title}\n\nNot measured in this run.\n");
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("## {title}\n\n");
    if !about.is_empty() {
        text.push_str(&format!("{about}\n\n"));
    }
    text.push_str(&line(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()));
    text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    text.extend(rows.iter().map(|row| line(row)));
    text
}

/// Formats a value with three significant digits; from 1000 on as a whole number, below 1 with three decimals.
pub fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "–".into(),
        v if v >= 1000.0 => thousands_of(v),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn thousands_of(value: f64) -> String {
    thousands(value.round() as usize)
}

/// Formats a number with separators, 100000 as `100,000`.
pub fn thousands(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
