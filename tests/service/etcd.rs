//! A real etcd for one test, and a relay in front of it that can be slow, silent or cut off.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::host::free_address;

/// An etcd cluster of a single member.
pub struct Etcd {
    directory: TempDir,
    port: u16,
    peers: u16,
    arguments: Vec<String>,
    is_tls: bool,
    /// The data directory. It is another one after a snapshot has been restored.
    data: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts etcd with additional arguments. It speaks TLS if these include a certificate.
    pub fn start_with(arguments: &[String]) -> Self {
        let directory = tempfile::Builder::new().prefix("ckg-etcd-").tempdir_in("/tmp").unwrap();
        let mut etcd = Self {
            data: directory.path().join("data"),
            directory,
            port: free_address().port(),
            peers: free_address().port(),
            arguments: arguments.to_vec(),
            is_tls: arguments.iter().any(|argument| argument == "--cert-file"),
            process: None,
        };
        etcd.launch();
        etcd
    }

    /// Saves a snapshot to a file and returns its path.
    pub fn save(&self) -> PathBuf {
        let file = self.directory.path().join("snapshot");
        self.run(&["snapshot", "save", file.to_str().unwrap()]);
        file
    }

    /// Kills etcd and starts it with the content of a snapshot.
    pub fn restore(&mut self, snapshot: &Path) {
        self.kill();
        self.data = self.directory.path().join("restored");
        let peers = format!("http://127.0.0.1:{}", self.peers);
        self.run(&[
            "snapshot",
            "restore",
            snapshot.to_str().unwrap(),
            "--data-dir",
            self.data.to_str().unwrap(),
            "--name",
            "test",
            "--initial-cluster",
            &format!("test={peers}"),
            "--initial-advertise-peer-urls",
            &peers,
        ]);
        self.launch();
    }

    pub fn launch(&mut self) {
        let scheme = if self.is_tls { "https" } else { "http" };
        let clients = format!("{scheme}://127.0.0.1:{}", self.port);
        let peers = format!("http://127.0.0.1:{}", self.peers);
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let process = Command::new("etcd")
            .args(["--name", "test", "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("test={peers}")])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd must be installed: tools/setup test");
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "etcd does not answer: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        // At first etcd has no leader. A test with TLS starts etcd only once, so its log has no line of an
        // earlier start.
        let is_ready = || match self.is_tls {
            true => {
                fs::read_to_string(self.log()).unwrap().contains("ready to serve client requests")
            }
            false => self.answers(),
        };
        while !is_ready() {
            assert!(Instant::now() < deadline, "etcd is not ready");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the JSON gateway answers. The gateway is a client of etcd itself. If it connects too early, it
    /// tries again only after seconds.
    fn answers(&self) -> bool {
        let body = r#"{"key": "AA=="}"#;
        let head = format!("POST /v3/kv/range HTTP/1.0\r\nContent-Length: {}", body.len());
        let asked = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).map(|()| answer)
        });
        asked.is_ok_and(|answer| answer.ends_with(b" 200"))
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args([
            "--endpoints",
            &self.url(),
            "--command-timeout",
            "20s",
        ]);
        command.args(arguments);
        command
    }

    /// Runs etcdctl. Returns what it prints, and whether it succeeded.
    fn ctl(&self, arguments: &[&str]) -> (Vec<u8>, bool) {
        let output = self.command(arguments).output();
        let output = output.expect("etcdctl must be installed: tools/setup test");
        (output.stdout, output.status.success())
    }

    /// Runs etcdctl, which must succeed, and returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        let (printed, is_done) = self.ctl(arguments);
        assert!(is_done, "etcdctl {arguments:?}");
        String::from_utf8(printed).unwrap()
    }

    pub fn value(&self, name_email: &str) -> String {
        self.run(&["get", &key(name_email), "--print-value-only"]).trim_end().to_owned()
    }

    /// Puts a value. etcd may refuse it, for example because its database is full.
    pub fn try_put(&self, name: &str, value: &str) {
        let _ = self.ctl(&["put", name, value]);
    }

    pub fn put(&self, name_email: &str, value: &str) {
        self.run(&["put", &key(name_email), value]);
    }

    /// Puts the same value under many names, at most 128.
    pub fn put_all(&self, names: &[String], value: &str) {
        let puts = names.iter().map(|name| format!("put {} {value:?}\n", key(name)));
        // Three parts, each ended by an empty line: no comparisons, the requests if they hold, and none if
        // they do not.
        let request = format!("\n{}\n\n", puts.collect::<String>());
        let file = self.directory.path().join("request");
        fs::write(&file, request).unwrap();
        let output = self.command(&["txn"]).stdin(fs::File::open(file).unwrap()).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.contains("SUCCESS"), "{answer}");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn key(name_email: &str) -> String {
    format!("/copr-keygen/keys/{name_email}")
}

/// A callback for every request that passes a relay. On `false` the relay withholds the answer and closes the
/// connection.
type Judge = Box<dyn FnMut(&str) -> bool + Send>;

/// A TCP relay from a port of its own to etcd.
pub struct Relay {
    port: u16,
    shared: Arc<RelayState>,
}

struct RelayState {
    to: u16,
    delay: AtomicU64,
    is_cut: AtomicBool,
    is_clipped: AtomicBool,
    judge: Mutex<Option<Judge>>,
}

impl Relay {
    pub fn to(etcd: &Etcd) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(RelayState {
            to: etcd.port(),
            delay: 0.into(),
            is_cut: false.into(),
            is_clipped: false.into(),
            judge: Mutex::new(None),
        });
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                thread::spawn(move || state.carry(&client));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, holds up each piece of an answer for this time.
    pub fn delay(&self, time: Duration) {
        self.shared.delay.store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// While `is_cut`, accepts connections and sends nothing back.
    pub fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// While `is_clipped`, ends a watch after the first piece of its answer.
    pub fn clip(&self, is_clipped: bool) {
        self.shared.is_clipped.store(is_clipped, Ordering::SeqCst);
    }

    pub fn judge(&self, judge: impl FnMut(&str) -> bool + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Some(Box::new(judge));
    }
}

impl RelayState {
    fn carry(self: &Arc<Self>, client: &TcpStream) {
        let Ok(etcd) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to)) else { return };
        let is_kept_back = Arc::new(AtomicBool::new(false));
        let is_watch = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let (state, kept_back) = (Arc::clone(self), Arc::clone(&is_kept_back));
            let watches = Arc::clone(&is_watch);
            let (mut from, mut to) = (client, &etcd);
            scope.spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    watches.fetch_or(text.contains("/v3/watch"), Ordering::SeqCst);
                    if let Some(judge) = state.judge.lock().unwrap().as_mut() {
                        kept_back.fetch_or(!judge(&text), Ordering::SeqCst);
                    }
                    if to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
            let (mut from, mut to) = (&etcd, client);
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
                while self.is_cut.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                if is_kept_back.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
                if is_watch.load(Ordering::SeqCst) && self.is_clipped.load(Ordering::SeqCst) {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = etcd.shutdown(Shutdown::Both);
        });
    }
}
