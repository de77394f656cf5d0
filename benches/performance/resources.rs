//! Measures the memory of the service at rest and under load, and how quickly a connection starts it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::samples::{Contender, Figure, alternate, milliseconds, timed};
use crate::service::{self, BINARY, Service, children, memory, terminate};
use crate::state::State;
use crate::throughput::sure_rate;
use crate::{Bench, Result, Site};

const ROUNDS: usize = 3;
const CLIENTS: usize = 4;
const KEYS: usize = 16;
const STARTS: usize = 60;
/// A shell command that moves the socket from stdin to file descriptor 3, where systemd would pass it.
const PASS_SOCKET: &str = r#"exec "$@" 3<&0 </dev/null"#;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let mut ends: Vec<_> = [sites.first(), sites.last()].into_iter().flatten().collect();
    ends.dedup_by_key(|site| site.size);
    let mut figures = Vec::new();
    for site in &ends {
        let [mut rest, mut load, mut jobs] = [const { Vec::new() }; 3];
        for _ in 0..bench.options.rounds(ROUNDS) {
            let seen = under_load(bench, site)?;
            rest.push(seen.rest);
            load.push(seen.load);
            jobs.push(seen.jobs);
        }
        let keys = Some(site.size);
        figures.push(Figure::new("memory/rest", keys, "MB", rest));
        figures.push(Figure::new("memory/load", keys, "MB", load));
        figures.push(Figure::new("memory/jobs", keys, "processes", jobs));
    }
    figures.extend(activation(bench, &ends)?);
    Ok(figures)
}

struct Seen {
    rest: f64,
    load: f64,
    jobs: f64,
}

/// Starts a service and has [`CLIENTS`] clients make keys. Returns its memory before that, its peak memory,
/// and the largest number of its child processes seen at once.
#[allow(clippy::cast_precision_loss)]
fn under_load(bench: &Bench, site: &Site) -> Result<Seen> {
    let service = Service::start(&site.state)?;
    let rest = memory(service.pid(), "VmRSS").ok_or("serve is gone")?;
    let names: Vec<_> = (0..KEYS).map(|_| bench.names.next()).collect();
    let ask =
        |index: usize| service.expect(&service::gen_key(&names[index], 2048, 0), 201).map(drop);
    let done = AtomicBool::new(false);
    let (made, jobs) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(children(service.pid()));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let made = sure_rate(CLIENTS, KEYS, ask);
        done.store(true, Ordering::Relaxed);
        (made, watch.join())
    });
    made?;
    let load = memory(service.pid(), "VmHWM").ok_or("serve is gone")?;
    names.iter().try_for_each(|name| site.state.forget(name))?;
    Ok(Seen { rest, load, jobs: jobs.map_err(|_| "a thread panicked")? as f64 })
}

fn activation(bench: &Bench, ends: &[&Site]) -> Result<Vec<Figure>> {
    let mut contenders = Vec::new();
    for site in ends {
        let keys = Some(site.size);
        let ready = || Activation::begin(bench, &site.state)?.ready();
        contenders.push(Contender::new("activation/ready", keys, "ms", ready));
        let answer = || Activation::begin(bench, &site.state)?.first_byte();
        contenders.push(Contender::new("activation/answer", keys, "ms", answer));
    }
    for (id, program) in [("activation/true", "/bin/true"), ("activation/version", BINARY)] {
        let run = move || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", PASS_SOCKET, "sh", program, "--version"]).env_clear();
            timed(|| service::stdout_of(&mut command))
        };
        contenders.push(Contender::new(id, None, "ms", run));
    }
    alternate("cold activation", bench.options.rounds(STARTS), contenders)
}

/// A service that was started for a client that has already connected and sent its request.
struct Activation {
    client: TcpStream,
    notify: UnixDatagram,
    notify_path: std::path::PathBuf,
    started: Instant,
    process: Child,
}

impl Activation {
    fn begin(bench: &Bench, state: &State) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.write_all(&service::get("/ping"))?;
        client.set_read_timeout(Some(Duration::from_secs(20)))?;
        let notify_path = bench.scratch.join(format!("{:016x}", rand::random::<u64>()));
        let notify = UnixDatagram::bind(&notify_path)?;
        notify.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", PASS_SOCKET, "sh", BINARY, "serve"]);
        service::environment(&mut command, state);
        command.env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", &notify_path);
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let process = command.spawn()?;
        Ok(Self { client, notify, notify_path, started, process })
    }

    /// Returns the time from before the fork to `READY=1`, in milliseconds. It includes the start of a shell.
    fn ready(self) -> Result<f64> {
        let mut message = [0; 512];
        loop {
            let length = self.notify.recv(&mut message)?;
            if message[..length].windows(7).any(|bytes| bytes == b"READY=1") {
                return Ok(milliseconds(self.started.elapsed()));
            }
        }
    }

    /// Returns the time from before the fork to the first byte of the answer, in milliseconds.
    fn first_byte(mut self) -> Result<f64> {
        self.client.read_exact(&mut [0])?;
        Ok(milliseconds(self.started.elapsed()))
    }
}

impl Drop for Activation {
    fn drop(&mut self) {
        terminate(&mut self.process);
        let _ = std::fs::remove_file(&self.notify_path); // the next run empties its directory
    }
}
