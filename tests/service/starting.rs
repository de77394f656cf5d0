//! Starting the service: arguments, settings, sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::host::{Connection, Host, Transport, eventually};
use super::lifecycle::scratch;

const BINARY: &str = env!("CARGO_BIN_EXE_copr-keygen");

/// A running `copr-keygen`, which is killed when the test is over.
pub struct Program(pub Child);

impl Program {
    /// Starts the program with these arguments and with no other environment variables than these.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear().env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.envs(environment.iter().copied());
        let piped = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(piped.spawn().unwrap())
    }

    /// Waits for the program to end. Returns its exit status and what it said on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let status = eventually("the program to end", || self.0.try_wait().unwrap());
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    Program::start(arguments, environment).end()
}

/// Requests `/ping` and returns the status, or `None` if nothing listens there.
fn ping(connection: std::io::Result<Connection>) -> Option<u16> {
    let mut connection = connection.ok()?;
    connection.limit_reads(Duration::from_secs(20));
    connection.write_all(b"GET /ping HTTP/1.1\r\nHost: sign-host\r\n\r\n").ok()?;
    Some(connection.reply().unwrap().status)
}

fn unix(path: impl AsRef<Path>) -> std::io::Result<Connection> {
    UnixStream::connect(path).map(Connection::Unix)
}

#[test]
fn a_wrong_setting_is_named_with_its_place() {
    let directory = scratch();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let file = |name: &str, text: &str| {
        fs::write(place(name), text).unwrap();
        place(name)
    };
    let (state, deep) = (place("state"), place(&"d".repeat(100)));
    let files = [
        (file("unknown.toml", "colour = 'red'"), "colour: unknown setting"),
        (file("value.toml", "key_length = 1024"), "key_length = \"1024\""),
        (file("type.toml", "jobs = 1.5"), "jobs: must be"),
        (file("syntax.toml", "jobs = 1\nexpire"), "line 2"),
        (place("nonexistent.toml"), "cannot be read"),
        (place(""), "cannot be read"),
    ];
    let variables = [
        ("COPR_KEYGEN_KEY_LENGTH", "1024", "key_length = \"1024\""),
        ("COPR_KEYGEN_EXPIRE", "never", "expire = \"never\""),
        ("COPR_KEYGEN_IDLE_TIMEOUT", "soon", "idle_timeout = \"soon\""),
        ("COPR_KEYGEN_JOBS", "-1", "jobs = \"-1\""),
        ("COPR_KEYGEN_LISTEN", "nowhere", "listen = \"nowhere\""),
        ("COPR_KEYGEN_GPG", "gpg", "gpg = \"gpg\""),
    ];
    let flags =
        [("--listen", "nowhere", "listen = \"nowhere\""), ("--state-dir", &deep, "state_dir")];

    let serve = ["serve", "--state-dir", &state];
    let mut cases = Vec::new();
    for (path, words) in &files {
        cases.push((run(&[&serve[..], &["--config", path]].concat(), &[]), path.as_str(), words));
        cases.push((run(&serve, &[("COPR_KEYGEN_CONFIG", path)]), path, words));
    }
    for (variable, value, words) in &variables {
        cases.push((run(&serve, &[(variable, value)]), variable, words));
    }
    for (flag, value, words) in &flags {
        cases.push((run(&["serve", flag, value], &[]), value, words));
    }
    for ((code, said), place, words) in cases {
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(place) && said.contains(words), "{place}, {words}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(!Path::new(&state).exists(), "it began in spite of a mistake");
}

#[test]
fn wrong_usage_is_told_from_failure() {
    for arguments in [&[][..], &["dance"], &["serve", "--colour"], &["serve", "--listen"]] {
        let (code, said) = run(arguments, &[]);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains("--help"), "{said}");
    }
    assert_eq!(run(&["--version"], &[]).0, Some(0));
}

#[test]
fn an_address_that_somebody_else_uses_is_left_to_them() {
    let directory = scratch();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unix = UnixListener::bind(place("socket")).unwrap();
    fs::write(place("file"), "somebody's").unwrap();
    let addresses = [
        tcp.local_addr().unwrap().to_string(),
        format!("unix:{}", place("socket")),
        format!("unix:{}", place("file")),
    ];
    for address in &addresses {
        let (code, said) =
            run(&["serve", "--state-dir", &place("state"), "--listen", address], &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(address) && said.contains("in use"), "{said}");
    }
    UnixStream::connect(place("socket")).unwrap();
    drop(unix);
    assert_eq!(fs::read_to_string(place("file")).unwrap(), "somebody's");
}

#[test]
fn a_socket_left_over_from_a_crash_is_replaced() {
    let mut host = Host::start(Transport::ListenUnix);
    host.signal(Signal::SIGKILL);
    host.wait();
    assert!(host.scratch().join("socket").exists());
    host.launch();
    assert!(host.stop().success());
}

#[test]
fn every_passed_socket_is_served() {
    let host = Host::new(Transport::ListenTcp, &[]);
    let path = host.scratch().join("socket");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let local = UnixListener::bind(&path).unwrap();
    let sockets: [OwnedFd; 2] =
        [tcp.try_clone().unwrap().into(), local.try_clone().unwrap().into()];
    for order in [[0, 1], [1, 0]] {
        let [first, second] = order.map(|index: usize| sockets[index].try_clone().unwrap());
        // The sockets arrive as stdin and stdout. The shell moves them to where systemd would put them.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"exec "$@" 3<&0 4<&1 </dev/null >/dev/null"#, "sh", BINARY, "serve"]);
        command.env_clear().env("COPR_KEYGEN_CONFIG", "/dev/null").env("LISTEN_FDS", "2");
        command.env("COPR_KEYGEN_STATE_DIR", host.state());
        let service =
            Program(command.stdin(first).stdout(second).stderr(Stdio::null()).spawn().unwrap());
        for _ in 0..3 {
            let stream = TcpStream::connect(tcp.local_addr().unwrap());
            assert_eq!(ping(stream.map(Connection::Tcp)), Some(200));
            assert_eq!(ping(unix(&path)), Some(200));
        }
        drop(service);
    }
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_the_file() {
    let directory = scratch();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let socket = |name: &str| format!("unix:{}", place(&format!("{name}.socket")));
    let config = place("config.toml");
    let text = format!("state_dir = '{}'\nlisten = ['{}']\n", place("file"), socket("file"));
    fs::write(&config, text).unwrap();
    let variables = [
        ("COPR_KEYGEN_CONFIG", &*config),
        ("COPR_KEYGEN_STATE_DIR", &place("environment")),
        ("COPR_KEYGEN_LISTEN", &socket("environment")),
    ];
    let flags = ["serve", "--state-dir", &place("flag"), "--listen", &socket("flag")];
    let cases = [
        ("file", &flags[..1], &variables[..1]),
        ("environment", &flags[..1], &variables[..]),
        ("flag", &flags[..], &variables[..]),
    ];
    let mut expected = vec!["config.toml".to_owned()];
    for (winner, arguments, environment) in cases {
        let service = Program::start(arguments, environment);
        let path = place(&format!("{winner}.socket"));
        assert_eq!(eventually("an answer", || ping(unix(&path))), 200);
        assert!(Path::new(&place(winner)).join("keys").is_dir());
        drop(service);
        // None of the settings that have lost has had an effect.
        expected.extend([winner.to_owned(), format!("{winner}.socket")]);
        expected.sort();
        let mut found: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, expected, "{winner}");
    }
}
