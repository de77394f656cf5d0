//! A real `copr-keygen serve`, a minimal HTTP client for it, and what the kernel reports about a process.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::Result;
use crate::state::State;

/// The program that is measured.
pub const BINARY: &str = env!("CARGO_BIN_EXE_copr-keygen");

/// A service on a state, terminated when dropped.
pub struct Service {
    process: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts a service that does not fill its pool, and waits until it answers.
    pub fn start(state: &State) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let path = state.path().with_extension("log");
        let log = fs::File::create(&path)?;
        let mut command = mode(state, ["serve"]);
        command.env("COPR_KEYGEN_LISTEN", address.to_string());
        let process = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let mut service = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !matches!(service.ask(&get("/ping")), Ok((200, _))) {
            if service.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("serve does not answer; see {}", path.display()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(service)
    }

    /// Sends a request over a new connection. Returns the status and the body of the answer.
    pub fn ask(&self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        stream.write_all(request)?;
        let mut answer = Vec::with_capacity(1024);
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("no answer")?;
        let status = std::str::from_utf8(answer.get(9..12).ok_or("a short answer")?)?.parse()?;
        Ok((status, answer.split_off(end + 4)))
    }

    /// Sends a request like [`Service::ask`] and returns the body. Fails unless the status is `status`.
    pub fn expect(&self, request: &[u8], status: u16) -> Result<Vec<u8>> {
        match self.ask(request)? {
            (found, body) if found == status => Ok(body),
            (found, body) => {
                Err(format!("{found} instead of {status}: {}", String::from_utf8_lossy(&body))
                    .into())
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

/// Sends SIGTERM to a process and waits for it.
pub fn terminate(process: &mut Child) {
    if let Ok(pid) = i32::try_from(process.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM); // fails only if it has ended
    }
    let _ = process.wait();
}

/// Returns the command for a mode of the program on `state`, with no pool to fill.
pub fn mode<A: AsRef<OsStr>>(state: &State, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    environment(&mut command, state);
    command
}

/// Sets an environment for `command` that names the state and no other configuration.
pub fn environment(command: &mut Command, state: &State) {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("COPR_KEYGEN_CONFIG", "/dev/null");
    command.env("COPR_KEYGEN_STATE_DIR", state.path()).env("COPR_KEYGEN_POOL", "");
    command.stdin(Stdio::null());
}

/// Runs a command and returns its stdout. Fails unless it exits with 0.
pub fn stdout_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output();
    let program = Path::new(command.get_program()).display();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: sign-host\r\n\r\n").into_bytes()
}

/// Returns a request `POST /gen_key`; `expire` is in days, 0 for never.
pub fn gen_key(name_email: &str, bits: u16, expire: u32) -> Vec<u8> {
    let body = json!({
        "name_real": "user_project", "name_email": name_email, "key_length": bits, "expire": expire,
    })
    .to_string();
    format!(
        "POST /gen_key HTTP/1.1\r\nHost: sign-host\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns a field of `/proc/PID/status` in MB; `None` if the process is gone.
pub fn memory(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Returns the number of children that a process has now.
pub fn children(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    tasks.filter_map(of_task).map(|list| list.split_whitespace().count()).sum()
}
