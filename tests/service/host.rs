//! A sign host for one test: a state directory of its own and the real binary serving it.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::programs;
use super::secret_stock::with_stock;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_copr-keygen");

/// How the service gets its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    ListenTcp,
    ListenUnix,
    PassedTcp,
    PassedUnix,
}

pub const TRANSPORTS: [Transport; 4] =
    [Transport::ListenTcp, Transport::ListenUnix, Transport::PassedTcp, Transport::PassedUnix];

/// Where the service can be reached.
#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A socket that stays open while the service does not run, like a socket of systemd.
#[derive(Debug)]
enum Held {
    Nothing,
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub struct Host {
    directory: TempDir,
    address: Address,
    held: Held,
    environment: Vec<(String, String)>,
    /// The limit of the service's file descriptors. `None` for the limit of this process.
    files_max: Option<u32>,
    /// The command line before the mode: the program, or another program that runs it.
    command: Vec<String>,
    /// The mode that runs as the service: `serve` or `signd`.
    service: &'static str,
    process: Option<Child>,
}

impl Host {
    /// Starts a service with default settings.
    pub fn start(transport: Transport) -> Self {
        Self::start_with(transport, &[])
    }

    /// Starts a service with `environment` on top of the defaults.
    pub fn start_with(transport: Transport, environment: &[(&str, &str)]) -> Self {
        let mut host = Self::new(transport, environment);
        host.launch();
        host
    }

    /// A host whose service does not run yet.
    pub fn new(transport: Transport, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
        let unix = directory.path().join("socket");
        let (held, address) = match transport {
            Transport::ListenTcp => (Held::Nothing, Address::Tcp(free_address())),
            Transport::ListenUnix => (Held::Nothing, Address::Unix(unix)),
            Transport::PassedTcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = Address::Tcp(listener.local_addr().unwrap());
                (Held::Tcp(listener), address)
            }
            Transport::PassedUnix => {
                (Held::Unix(UnixListener::bind(&unix).unwrap()), Address::Unix(unix))
            }
        };
        // systemd asks for the longest queue of connections that the kernel allows. std asks for 128 only.
        match &held {
            Held::Nothing => {}
            Held::Tcp(listener) => listen(listener, Backlog::MAXALLOWABLE).unwrap(),
            Held::Unix(listener) => listen(listener, Backlog::MAXALLOWABLE).unwrap(),
        }
        // A pool would make gpg run when a test does not expect it. An idle service must not exit, because
        // nothing would start it again.
        let usual = [("COPR_KEYGEN_POOL", ""), ("COPR_KEYGEN_IDLE_TIMEOUT", "0")];
        let environment = usual.iter().chain(environment);
        let environment = environment.map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Self {
            directory,
            address,
            held,
            environment,
            files_max: None,
            command: vec![BINARY.into()],
            service: "serve",
            process: None,
        }
    }

    /// A host whose service is `signd`, on the state of `keys`. It does not run yet.
    pub fn signd(keys: &Self, transport: Transport, environment: &[(&str, &str)]) -> Self {
        let mut host = Self::new(transport, environment);
        host.service = "signd";
        host.set("COPR_KEYGEN_STATE_DIR", keys.state().display());
        host
    }

    /// Passes this TCP socket to the service. The clients of the test connect to it at the loopback address.
    pub fn hold(&mut self, listener: TcpListener) {
        let port = listener.local_addr().unwrap().port();
        self.address = Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
        self.held = Held::Tcp(listener);
    }

    /// Changes the environment of the next start.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.environment.push((name.into(), value.to_string()));
    }

    /// Takes a variable out of the environment of the next start.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Runs the service and all modes as user 12345, with `group` as the only supplementary group.
    pub fn run_as_stranger_in(&mut self, group: u32) {
        // The directory of the build may be closed to that user.
        let copy = programs::install(self.scratch());
        fs::set_permissions(self.scratch(), Permissions::from_mode(0o755)).unwrap();
        let setpriv = format!("setpriv --reuid=12345 --regid=12345 --groups={group}");
        self.command = setpriv.split(' ').map(str::to_owned).collect();
        self.command.push(copy.to_str().unwrap().to_owned());
    }

    /// Limits the descriptors of the next start (RLIMIT_NOFILE).
    pub fn limit_files(&mut self, count: u32) {
        self.files_max = Some(count);
    }

    /// Starts the service and waits until it answers. One that soon exits when it is idle may have exited by
    /// then; use [`Host::spawn`] for it.
    pub fn launch(&mut self) {
        self.spawn();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}: {}", self.log());
            assert!(Instant::now() < deadline, "it does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        if self.service == "serve" {
            return self.get("/ping").is_ok_and(|reply| reply.status == 200);
        }
        // Send a ping. A client that signd refuses gets an answer, too.
        let mut answer = Vec::new();
        let asked = self.connect().and_then(|mut connection| {
            connection.write_all(&[0; 4])?;
            connection.read_to_end(&mut answer)
        });
        asked.is_ok() && !answer.is_empty()
    }

    /// Starts the service without waiting for anything.
    pub fn spawn(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let passed: Option<OwnedFd> = match &self.held {
            Held::Nothing => None,
            Held::Tcp(listener) => Some(listener.try_clone().unwrap().into()),
            Held::Unix(listener) => Some(listener.try_clone().unwrap().into()),
        };
        // The socket arrives as stdin. The shell moves it to descriptor 3, where systemd would put it.
        let limit = self.files_max.map_or(String::new(), |count| format!("ulimit -n {count}; "));
        let sockets = if passed.is_some() { " 3<&0 </dev/null" } else { "" };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!(r#"{limit}exec "$@"{sockets}"#));
        command.arg("sh").args(&self.command).arg(self.service);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("COPR_KEYGEN_CONFIG", "/dev/null").env("COPR_KEYGEN_STATE_DIR", self.state());
        match (passed, &self.address) {
            (Some(socket), _) => {
                command.env("LISTEN_FDS", "1").stdin(Stdio::from(socket));
            }
            (None, Address::Tcp(address)) => {
                let listen = address.to_string();
                command.env("COPR_KEYGEN_LISTEN", &listen).env("COPR_KEYGEN_SIGND_LISTEN", &listen);
                command.stdin(Stdio::null());
            }
            (None, Address::Unix(path)) => {
                let listen = format!("unix:{}", path.display());
                command.env("COPR_KEYGEN_LISTEN", &listen).env("COPR_KEYGEN_SIGND_LISTEN", &listen);
                command.stdin(Stdio::null());
            }
        }
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.process = Some(process);
    }

    /// Returns a command that runs another mode on the state of this host.
    pub fn mode(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("COPR_KEYGEN_CONFIG", "/dev/null").env("COPR_KEYGEN_STATE_DIR", self.state());
        command.envs(self.environment.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command
    }

    /// Runs a mode and returns its exit status and its output.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.mode(arguments).output().unwrap()
    }

    /// Runs a mode that prints JSON and must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Returns a scratch directory, in which the state directory is.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    pub fn home(&self, name_email: &str) -> PathBuf {
        self.state().join("keys").join(name_email)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Returns what the service has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.as_ref().unwrap().id()).unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the service to end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.take().unwrap().wait().unwrap()
    }

    /// Returns the exit status of the service if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().unwrap().try_wait().unwrap()
    }

    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Connects to the service. Reads fail after 40 s.
    pub fn connect(&self) -> io::Result<Connection> {
        let limit = Some(Duration::from_secs(40));
        Ok(match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(limit)?;
                Connection::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(limit)?;
                Connection::Unix(stream)
            }
        })
    }

    /// Sends `bytes` and reads what comes back until the service closes.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Reply> {
        let mut connection = self.connect()?;
        // The service may refuse the request and close the connection before all bytes are written.
        let _ = connection.write_all(bytes);
        connection.reply()
    }

    pub fn get(&self, path: &str) -> io::Result<Reply> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: sign-host\r\n\r\n").as_bytes())
    }

    pub fn post(&self, body: &[u8]) -> io::Result<Reply> {
        self.send(&gen_key_request(body))
    }

    /// Sends `POST /gen_key` for `name_email` with `extra` fields.
    pub fn gen_key(&self, name_email: &str, extra: Value) -> io::Result<Reply> {
        let mut body = json!({"name_real": "user_project", "name_email": name_email});
        if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
            body.extend(extra);
        }
        self.post(body.to_string().as_bytes())
    }

    /// Like `gen_key`, but tries again after a 5xx status, as the backend does. On a busy machine, a request
    /// may wait too long. A key of the usual length gets a secret key that another test has had, if the host
    /// makes keys as the user of the test.
    pub fn gen_key_patiently(&self, name_email: &str, extra: &Value) -> Reply {
        let ask = || self.gen_key(name_email, extra.clone()).unwrap();
        let make = || (0..4).map(|_| ask()).find(|reply| reply.status < 500).unwrap_or_else(ask);
        let length = self.environment.iter().any(|(name, _)| name == "COPR_KEYGEN_KEY_LENGTH");
        if length || extra.get("key_length").is_some() {
            return make();
        }
        with_stock(self, name_email, make)
    }

    /// Like `gen_key`, but tries again after a 503, which a loaded machine may cause. Any other failure
    /// counts.
    pub fn gen_key_when_free(&self, name_email: &str) -> Reply {
        let ask = || self.gen_key(name_email, json!({})).unwrap();
        (0..10).map(|_| ask()).find(|reply| reply.status != 503).unwrap_or_else(ask)
    }

    /// Runs gpg on the home of a key and returns what it prints; panics when it fails.
    pub fn gpg(&self, name_email: &str, arguments: &[&str]) -> String {
        gpg(&self.home(name_email), arguments)
    }

    /// Returns the names in a directory of the state, sorted.
    pub fn entries(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.state().join(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub fn gen_key_request(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /gen_key HTTP/1.1\r\nHost: sign-host\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Runs gpg on a copy of `home`, so that the agent it starts leaves nothing in the original.
pub fn gpg(home: &Path, arguments: &[&str]) -> String {
    let copy = tempfile::Builder::new().prefix("ckg-gpg-").tempdir_in("/tmp").unwrap();
    let copied = Command::new("cp").arg("-a").arg(home.join(".")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    let output = Command::new("gpg")
        .args(["--batch", "--no-tty", "--quiet", "--homedir"])
        .arg(copy.path())
        .args(arguments)
        .output()
        .unwrap();
    let mut end_agent = Command::new("gpgconf");
    let _ = end_agent.arg("--homedir").arg(copy.path()).args(["--kill", "all"]).status();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gpg {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

pub enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Reads the answer until the service closes.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        match self.read_to_end(&mut bytes) {
            Err(e) if bytes.is_empty() => return Err(e),
            _ => {}
        }
        Reply::parse(&bytes)
    }

    /// Sets the time after which a read fails with `WouldBlock`.
    pub fn limit_reads(&self, limit: Duration) {
        let limited = match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Self::Unix(stream) => stream.set_read_timeout(Some(limit)),
        };
        limited.unwrap();
    }

    pub fn shut_down(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {text:?}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
        Ok(Self { status, head: head.into(), body: body.into() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Returns the Unix time.
pub fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Waits until `found` returns something. Panics after 30 s.
pub fn eventually<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(30), what, found)
}

/// Waits until `found` returns something. Panics after `limit`.
pub fn within<T>(limit: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills `child` and waits until nothing holds its locks any more. A process that it has just forked holds
/// them until it executes gpg. Until then, its command line and environment are those of `child`.
pub fn kill_child(child: &mut Child) {
    let looks = |process: &Path| {
        let part = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        (part("cmdline"), part("environ"))
    };
    let killed = looks(&Path::new("/proc").join(child.id().to_string()));
    let _ = child.kill(); // it may have ended by itself
    child.wait().unwrap();
    if killed.0.is_empty() {
        return; // it had ended by itself, and left nothing behind
    }
    eventually("what the killed process has forked to end or to become gpg", || {
        let mut processes = fs::read_dir("/proc").unwrap().flatten();
        processes.all(|process| looks(&process.path()) != killed).then_some(())
    });
}

/// Sets the flag when it is dropped, and so ends the threads that run until the flag is `true`. They must end
/// when the test fails, too, because a scope waits for all of its threads.
pub struct DoneWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for DoneWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
