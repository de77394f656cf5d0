//! `gnupg/`, the home of the one gpg-agent that signs with all keys. This module keeps its configuration up to
//! date without touching what an operator wrote there, and talks to the running agent.

use std::fs::{self, Metadata};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gpg::agent::{
    AgentOption, FOR_MANY_CLIENTS, agent_configuration, missing_for_many_clients, with_options,
};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::unistd::AccessFlags;

use crate::error::Result;
use crate::files::durable::{replace, write_new};
use crate::files::is_missing;
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::layout::GNUPG;

/// The options of this agent in addition to [`FOR_MANY_CLIENTS`]. signd supplies the passphrase with every
/// signature, so the agent need not cache any.
const ONLY_HERE: [AgentOption; 5] = [
    AgentOption::with("default-cache-ttl", "0"),
    AgentOption::with("max-cache-ttl", "0"),
    AgentOption::flag("disable-scdaemon"),
    AgentOption::with("extra-socket", "none"),
    AgentOption::with("browser-socket", "none"),
];

const HEADING: &str =
    "# Written by copr-keygen, which adds what an agent needs and keeps the rest.\n";

/// The name of the agent's socket in its home.
pub const SOCKET: &str = "S.gpg-agent";

/// The size limit in bytes, larger than any configuration.
const SIZE_MAX: u64 = 1 << 20;

/// How long an agent may take to answer. An agent that signs for many clients serves them in turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The home of the agent that signs.
#[derive(Clone, Debug)]
pub struct AgentHome(PathBuf);

/// The state of `gpg-agent.conf`.
#[derive(Debug)]
pub enum Configuration {
    /// The file is missing.
    Absent,
    /// The file has all required options.
    Whole,
    /// The file lacks these options.
    Lacks(Vec<AgentOption>),
    /// The file must not be changed: the reason, and the options that it lacks.
    Foreign(String, Vec<AgentOption>),
}

/// The state of the agent in the home.
#[derive(Debug, PartialEq, Eq)]
pub enum Agent {
    /// No agent runs. The next signature starts one.
    None,
    /// An agent takes connections but does not answer, for this reason.
    Silent(String),
    /// An agent answers.
    Answers {
        /// The process ID of the agent.
        pid: u32,
        /// Whether the configuration was changed after the agent started.
        is_outdated: bool,
    },
}

impl AgentHome {
    /// Returns the agent's home of the state directory `root`.
    pub fn of(root: &Path) -> Self {
        Self(root.join(GNUPG))
    }

    /// The path of the home.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `gpg-agent.conf`.
    pub fn configuration_path(&self) -> PathBuf {
        self.0.join("gpg-agent.conf")
    }

    fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Examines the configuration.
    pub fn configuration(&self) -> Configuration {
        self.look().0
    }

    /// Returns the state of the configuration and its text.
    fn look(&self) -> (Configuration, Vec<u8>) {
        let (text, is_link) = match self.read() {
            Ok(Some(found)) => found,
            Ok(None) => return (Configuration::Absent, Vec::new()),
            Err(e) => {
                let why = format!("cannot be read: {e}");
                return (Configuration::Foreign(why, FOR_MANY_CLIENTS.to_vec()), Vec::new());
            }
        };
        let found = match missing_for_many_clients(&text) {
            lines if lines.is_empty() => Configuration::Whole,
            // An operator keeps the file elsewhere. A rename would replace the link, not that file.
            lines if is_link => Configuration::Foreign("is a symbolic link".into(), lines),
            lines => Configuration::Lacks(lines),
        };
        (found, text)
    }

    /// Whether the configuration has a line that begins with `option`.
    pub fn says(&self, option: &str) -> bool {
        let (_, text) = self.look();
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.any(|line| line.starts_with(option.as_bytes()))
    }

    /// Reads the text of the configuration, and whether a symbolic link leads to it.
    fn read(&self) -> io::Result<Option<(Vec<u8>, bool)>> {
        let path = self.configuration_path();
        let file = match open_regular(&path, Symlinks::Followed) {
            // An operator's link, whose file may come back, is not replaced.
            Err(e) if is_missing(&e) && !path.is_symlink() => return Ok(None),
            file => file?,
        };
        let file = file.ok_or_else(|| io::Error::other("it is not a regular file"))?;
        let text = beginning(file, SIZE_MAX + 1)?.to_vec();
        if text.len() as u64 > SIZE_MAX {
            return Err(io::Error::other("it is too long"));
        }
        Ok(Some((text, fs::symlink_metadata(&path)?.is_symlink())))
    }

    /// Writes the configuration if it is missing, or appends the options that older versions did not write.
    /// `scratch` is an empty directory that nobody else uses. Returns the options that were appended to an
    /// existing file.
    pub fn update(&self, scratch: &Path) -> Result<Vec<AgentOption>> {
        let (text, added) = match self.look() {
            (Configuration::Absent, _) => {
                let options = FOR_MANY_CLIENTS.iter().chain(&ONLY_HERE);
                (format!("{HEADING}{}", agent_configuration(options)).into_bytes(), Vec::new())
            }
            (Configuration::Lacks(lines), text) => (with_options(&text, &lines), lines),
            (Configuration::Whole | Configuration::Foreign(..), _) => return Ok(Vec::new()),
        };
        let (fresh, path) = (scratch.join("gpg-agent.conf"), self.configuration_path());
        write_new(&fresh, &text)?;
        replace(&fresh, &path)?;
        Ok(added)
    }

    /// Asks the agent that listens in the home for its state. For users who are logged in, GnuPG places the
    /// sockets of a home elsewhere (`/run/user`). An agent with such a socket is not found.
    pub fn agent(&self) -> Agent {
        let stream = match connect(&self.socket()) {
            Ok(stream) => stream,
            Err(nix::Error::EAGAIN) => {
                return Agent::Silent("too many connections wait for it".into());
            }
            Err(_) => return Agent::None,
        };
        match ask_pid(stream) {
            Ok(pid) => Agent::Answers { pid, is_outdated: self.is_outdated() },
            Err(e) => Agent::Silent(e.to_string()),
        }
    }

    /// Returns the path of the socket if gpg would look for it there and an agent answers on it.
    pub fn live_socket(&self) -> Option<PathBuf> {
        let is_live = !has_sockets_elsewhere() && matches!(self.agent(), Agent::Answers { .. });
        is_live.then(|| self.socket())
    }

    /// Returns why no agent can be started in the home, if none runs there either. An agent needs to create
    /// locks and sockets in its home. For users who are logged in, the sockets are elsewhere, so whether an
    /// agent runs is unknown and `None` is returned.
    pub fn lacks_agent(&self) -> Option<nix::Error> {
        let errno = nix::unistd::access(&self.0, AccessFlags::W_OK).err()?;
        let is_cut_off = matches!(errno, nix::Error::EROFS | nix::Error::ENOENT);
        let has_agent = || {
            has_sockets_elsewhere()
                || matches!(connect(&self.socket()), Ok(_) | Err(nix::Error::EAGAIN))
        };
        (is_cut_off && !has_agent()).then_some(errno)
    }

    /// Whether the configuration is newer than the socket, which an agent creates after it has read the
    /// configuration. Both times come from the same file system. A time in the future proves nothing.
    fn is_outdated(&self) -> bool {
        let changed = |path| fs::metadata(path).and_then(|found: Metadata| found.modified());
        match (changed(self.configuration_path()), changed(self.socket())) {
            (Ok(configured), Ok(started)) => {
                configured > started && configured <= SystemTime::now()
            }
            _ => false,
        }
    }
}

/// Whether GnuPG places the sockets of all homes in another directory, as it does for users who are logged in.
fn has_sockets_elsewhere() -> bool {
    Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir()
}

/// Connects without blocking: a process that accepts no connections must not delay this one.
fn connect(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Asks the agent for its process ID.
fn ask_pid(mut stream: UnixStream) -> io::Result<u32> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GETINFO pid\n")?;
    // The agent sends its greeting, then the answer, then `OK`.
    let mut lines = BufReader::new(stream.take(4096));
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it does not say which process it is"));
        }
        if let Some(Ok(pid)) = line.trim_end().strip_prefix("D ").map(str::parse) {
            return Ok(pid);
        }
    }
}
