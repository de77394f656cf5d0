//! `gnupg/`, the home of the one agent that signs with all keys: its configuration, which is kept up to
//! date without touching what an operator wrote there, and the agent that runs.

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
use crate::files::if_there;
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::layout::GNUPG;

/// What the shared agent has beyond that. signd answers its questions for passphrases with every signature,
/// so the agent need not remember any.
const ONLY_HERE: [AgentOption; 5] = [
    AgentOption::with("default-cache-ttl", "0"),
    AgentOption::with("max-cache-ttl", "0"),
    AgentOption::flag("disable-scdaemon"),
    AgentOption::with("extra-socket", "none"),
    AgentOption::with("browser-socket", "none"),
];

const HEADING: &str =
    "# Written by copr-keygen, which adds what an agent needs and keeps the rest.\n";

/// What the agent listens on, in its home.
pub const SOCKET: &str = "S.gpg-agent";

/// Longer than any configuration.
const SIZE_MAX: u64 = 1 << 20;

/// How long an agent may take to answer. One that signs for many takes turns.
const PATIENCE: Duration = Duration::from_secs(10);

/// The home of the agent.
#[derive(Clone, Debug)]
pub struct AgentHome(PathBuf);

/// What `gpg-agent.conf` is.
#[derive(Debug)]
pub enum Configuration {
    /// It is not there.
    Absent,
    /// It says all it must.
    Whole,
    /// These lines are missing.
    Lacks(Vec<AgentOption>),
    /// It is left alone: why, and the lines that are missing.
    Foreign(String, Vec<AgentOption>),
}

/// The agent that runs in the home.
#[derive(Debug, PartialEq, Eq)]
pub enum Agent {
    /// There is none. The next signature starts one.
    None,
    /// It takes connections and says nothing, for this reason.
    Silent(String),
    /// It answers.
    Answers {
        /// Its process.
        pid: u32,
        /// Whether the configuration was changed after it had started.
        is_outdated: bool,
    },
}

impl AgentHome {
    /// The agent's home of the state directory `root`.
    pub fn of(root: &Path) -> Self {
        Self(root.join(GNUPG))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `gpg-agent.conf`.
    pub fn configuration_path(&self) -> PathBuf {
        self.0.join("gpg-agent.conf")
    }

    fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Looks at the configuration.
    pub fn configuration(&self) -> Configuration {
        self.look().0
    }

    /// The configuration and its text.
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
            // An operator keeps the file elsewhere; a rename would put another one in its place.
            lines if is_link => Configuration::Foreign("is a symbolic link".into(), lines),
            lines => Configuration::Lacks(lines),
        };
        (found, text)
    }

    /// Whether the configuration has a line that begins so.
    pub fn says(&self, option: &str) -> bool {
        let (_, text) = self.look();
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.any(|line| line.starts_with(option.as_bytes()))
    }

    /// The text of the configuration, and whether a symbolic link leads to it.
    fn read(&self) -> io::Result<Option<(Vec<u8>, bool)>> {
        let path = self.configuration_path();
        let Some(file) = if_there(open_regular(&path, Symlinks::Followed))? else {
            return Ok(None);
        };
        let file = file.ok_or_else(|| io::Error::other("it is not a regular file"))?;
        let text = beginning(file, SIZE_MAX + 1)?.to_vec();
        if text.len() as u64 > SIZE_MAX {
            return Err(io::Error::other("it is too long"));
        }
        Ok(Some((text, fs::symlink_metadata(&path)?.is_symlink())))
    }

    /// Writes the configuration if it is missing, or adds the lines that older versions did not write;
    /// `scratch` is an empty directory that nobody else uses. Returns the lines that were added.
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

    /// Asks the agent that listens in the home. For users who are logged in, gpg has the sockets of a home
    /// elsewhere (`/run/user`); such an agent is not found.
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

    /// The socket of an agent that answers where gpg looks for it.
    pub fn live_socket(&self) -> Option<PathBuf> {
        let is_live = !has_sockets_elsewhere() && matches!(self.agent(), Agent::Answers { .. });
        is_live.then(|| self.socket())
    }

    /// Why no agent can be started in the home, if that is so and none runs there. It makes locks and
    /// sockets in the home; the sockets are elsewhere for users who are logged in, which says nothing here.
    pub fn lacks_agent(&self) -> Option<nix::Error> {
        let errno = nix::unistd::access(&self.0, AccessFlags::W_OK).err()?;
        let is_cut_off = matches!(errno, nix::Error::EROFS | nix::Error::ENOENT);
        let has_agent = || {
            has_sockets_elsewhere()
                || matches!(connect(&self.socket()), Ok(_) | Err(nix::Error::EAGAIN))
        };
        (is_cut_off && !has_agent()).then_some(errno)
    }

    /// An agent makes its socket once it has read its configuration. Both times are of one file system; one
    /// that is still to come says nothing.
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

/// Whether gpg has the sockets of all homes in another directory: for users who are logged in.
fn has_sockets_elsewhere() -> bool {
    Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir()
}

/// Connects without waiting: a process that takes no connections must not hold us up.
fn connect(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// The process of the agent, as it says itself.
fn ask_pid(mut stream: UnixStream) -> io::Result<u32> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GETINFO pid\n")?;
    // Its greeting, the answer and OK.
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
