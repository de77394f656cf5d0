//! Measures signing by `copr-keygen signd`, beside the agent of obs-signd
//! (examples/signd-client.rs) and `openssl speed`: with few clients and many, few keys
//! and many. The load generator speaks the protocol and does nothing else.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

use crate::samples::{Contender, Figure, alternate, timed};
use crate::service::{self, memory, terminate};
use crate::signing::AgentClient;
use crate::state::State;
use crate::throughput::{rate, sure_rate};
use crate::{Bench, Result, Site, bare};

pub const BITS: [u16; 2] = [2048, 4096];
pub const CLIENTS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 8;
/// The number of signatures in one round. It must be large, as the kernel counts
/// processor time in hundredths of a second.
const SIGNATURES: usize = 400;
/// The number of signatures in one round by the agent, which takes much longer.
const SIGNATURES_BY_AGENT: usize = 64;
/// The number of keys that sign in turn.
const KEYS: usize = 8;
/// How long `openssl speed` runs for one value, in seconds.
const OPENSSL_TIME: &str = "1";

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let mut ends: Vec<_> = [sites.first(), sites.last()].into_iter().flatten().collect();
    ends.dedup_by_key(|site| site.size);
    let mut figures = Vec::new();
    for bits in BITS {
        figures.extend(by_clients(bench, ends[0], bits)?);
    }
    figures.extend(by_size(bench, &ends)?);
    Ok(figures)
}

/// Measures signatures per second, their processor time, and the memory of the signer.
#[allow(clippy::cast_precision_loss)]
fn by_clients(bench: &Bench, site: &Site, bits: u16) -> Result<Vec<Figure>> {
    let names: Vec<_> = (0..KEYS).map(|_| bench.names.next()).collect();
    for name in &names {
        site.service.expect(&service::gen_key(name, bits, 0), 201)?;
    }
    let agent = AgentClient::new(bench, site)?;
    let signer = Signer::start(&site.state)?;
    let keys = Some(site.size);
    let scale = |count: usize| (bench.options.rounds(count)).min(count);
    let (count, by_agent) = (scale(SIGNATURES), scale(SIGNATURES_BY_AGENT));
    let (spent, spent_by_many) = (RefCell::default(), RefCell::default());
    let (limits, failed) = (RefCell::default(), RefCell::default());
    let mut contenders = Vec::new();
    for clients in CLIENTS {
        let (signer, names, limits): (_, _, &RefCell<Vec<f64>>) = (&signer, &names, &limits);
        let (spent, spent_by_many) = (&spent, &spent_by_many);
        let run = move |names: &[String]| {
            let before = (signer.processor_time()?, own_time()?);
            let sign = |index: usize| signer.sign(&names[index % names.len()]);
            let rate = sure_rate(clients, count, sign)?;
            let by_signer = (signer.processor_time()? - before.0) / count as f64;
            let by_client = (own_time()? - before.1) / count as f64;
            if clients == 8 {
                let spent: &RefCell<Vec<f64>> = if names.len() > 1 { spent_by_many } else { spent };
                spent.borrow_mut().push(by_signer);
            }
            if clients == 64 {
                // The best that the processors could do, if signer and clients never waited.
                let limit = bench.options.cores as f64 * 1000.0 / (by_signer + by_client);
                limits.borrow_mut().push(limit / rate);
            }
            Ok(rate)
        };
        let id = format!("signer/{bits}/{clients}");
        contenders.push(Contender::new(id, keys, "/s", move || run(&names[..1])));
        if clients == 8 {
            let id = format!("signer/{bits}/{clients}/{KEYS} keys");
            contenders.push(Contender::new(id, keys, "/s", move || run(names)));
        }
        let (agent, failed): (_, &RefCell<Vec<f64>>) = (&agent, &failed);
        let run = move || {
            let (rate, failures) = rate(clients, by_agent, |_| agent.sign(&names[0]))?;
            failed.borrow_mut().push(100.0 * failures.len() as f64 / by_agent as f64);
            Ok(rate)
        };
        contenders.push(Contender::new(format!("agent/{bits}/{clients}"), keys, "/s", run));
    }
    contenders.push(Contender::new(format!("openssl/{bits}"), None, "ms", || openssl(bits)));
    let what = format!("signatures/s, RSA-{bits}");
    let mut figures = alternate(&what, bench.options.rounds(ROUNDS), contenders)?;
    for (id, keys, unit, values) in [
        ("signer/cpu", keys, "ms", spent.into_inner()),
        ("signer/cpu of many", keys, "ms", spent_by_many.into_inner()),
        ("signer/limit", keys, "×", limits.into_inner()),
        ("signer/memory", keys, "MB", vec![signer.memory("VmHWM")?]),
        ("agent/failed", keys, "% failed", failed.into_inner()),
    ] {
        figures.push(Figure::new(format!("{id}/{bits}"), keys, unit, values));
    }
    drop(signer);
    bare::end_agent(&site.state.path().join("gnupg"));
    names.iter().try_for_each(|name| site.state.forget(name))?;
    Ok(figures)
}

/// Measures one client, with few identities and with many.
fn by_size(bench: &Bench, ends: &[&Site]) -> Result<Vec<Figure>> {
    let name = bench.names.next();
    let mut signers = Vec::new();
    for site in ends {
        site.service.expect(&service::gen_key(&name, 2048, 0), 201)?;
        signers.push((site.size, Signer::start(&site.state)?));
    }
    let mut contenders = Vec::new();
    for (size, signer) in &signers {
        let name = &name;
        let sign = move || timed(|| signer.sign(name));
        contenders.push(Contender::new("signer/sign", Some(*size), "ms", sign));
    }
    let figures = alternate("one signature", bench.options.rounds(40 * ROUNDS), contenders);
    for site in ends {
        site.state.forget(&name)?;
    }
    figures
}

/// A `copr-keygen signd` on a state, terminated when dropped.
struct Signer {
    process: Child,
    address: SocketAddr,
}

impl Signer {
    fn start(state: &State) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let path = state.path().with_extension("signd.log");
        let mut command = service::mode(state, ["signd"]);
        command.env("COPR_KEYGEN_SIGND_LISTEN", address.to_string());
        let log = fs::File::create(&path)?;
        let process = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let mut signer = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while signer.ask(&[0; 4]).is_err() {
            if signer.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("signd does not answer; see {}", path.display()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(signer)
    }

    /// Has one digest signed, over a new connection.
    fn sign(&self, name: &str) -> Result<()> {
        let digest: [u8; 32] = rand::random();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let strings = ["sign".into(), format!("SHA256:{name}"), format!("{digest}@0069000000")];
        let mut body = vec![0, 3];
        for string in &strings {
            body.extend(u16::try_from(string.len())?.to_be_bytes());
        }
        strings.iter().for_each(|string| body.extend(string.bytes()));
        let length = u16::try_from(body.len())?.to_be_bytes();
        let answer = self.ask(&[&length[..], &[0, 0], &body].concat())?;
        match answer.get(..2) {
            Some([0, 0]) if answer.len() > 256 => Ok(()),
            _ => Err(String::from_utf8_lossy(&answer).into_owned().into()),
        }
    }

    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        stream.write_all(request)?;
        let mut answer = Vec::with_capacity(1024);
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// Returns the processor time of the signer in milliseconds: fields 14 and 15 of `/proc/PID/stat`.
    fn processor_time(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
        let [user, system] = ticks[..] else { return Err("a strange /proc/PID/stat".into()) };
        let a_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("the kernel counts no ticks")?;
        #[allow(clippy::cast_precision_loss)]
        Ok((user + system) * 1000.0 / a_second as f64)
    }

    fn memory(&self, field: &str) -> Result<f64> {
        Ok(memory(self.process.id(), field).ok_or("signd is gone")?)
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

/// Returns the processor time of this process in milliseconds.
#[allow(clippy::cast_precision_loss)]
fn own_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = usage.user_time() + usage.system_time();
    Ok(time.num_microseconds() as f64 / 1000.0)
}

/// Returns the time of one RSA signature in milliseconds, as `openssl speed` measures it.
fn openssl(bits: u16) -> Result<f64> {
    let mut command = Command::new("openssl");
    command.args(["speed", "-mr", "-seconds", OPENSSL_TIME]).arg(format!("rsa{bits}"));
    let output = command.stderr(Stdio::null()).output().map_err(|e| format!("openssl: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `+F2:2:2048:SIGN:VERIFY`, both in operations per second of processor time.
    let line = text.lines().find(|line| line.starts_with("+F2:"));
    let rate: Option<f64> = line.and_then(|line| line.split(':').nth(3)?.parse().ok());
    rate.map(|rate| 1000.0 / rate).ok_or_else(|| format!("openssl speed said {text:?}").into())
}
