//! Asks systemd about our units and those of obs-signd. Starts and changes nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use gpg::process::{self, End, Job};

const PATIENCE: Duration = Duration::from_secs(5);

/// The properties to ask for.
const PROPERTIES: &str = "--property=LoadState,ActiveState,UnitFileState,Result,Environment,\
NextElapseUSecRealtime,ExecMainStatus,Listen,IPAddressAllow,IPAddressDeny,MainPID,User,NoNewPrivileges,ProtectSystem";

pub const SOCKET: &str = "copr-keygen.socket";
pub const SERVICE: &str = "copr-keygen.service";
pub const TIMER: &str = "copr-keygen-prolong.timer";
pub const PROLONG: &str = "copr-keygen-prolong.service";
pub const POOL: &str = "copr-keygen-pool.path";
pub const FILL_POOL: &str = "copr-keygen-pool.service";
/// The unit that opens sealed passphrases for signd.
pub const PHRASES: &str = "copr-keygen-phrases.service";
/// The socket unit of our own signer.
pub const SIGND_SOCKET: &str = "copr-keygen-signd.socket";
/// The service unit of our own signer, started by [`SIGND_SOCKET`].
pub const SIGND_SERVICE: &str = "copr-keygen-signd.service";
/// The unit names of obs-signd. The first two differ by distribution; the last is that of the old service.
pub const SIGND: [&str; 3] = ["signd.service", "obssignd.service", "signd-copr.service"];

/// All units to ask about.
const NAMES: [&str; 12] = [
    SOCKET,
    SERVICE,
    TIMER,
    PROLONG,
    POOL,
    FILL_POOL,
    PHRASES,
    SIGND_SOCKET,
    SIGND_SERVICE,
    SIGND[0],
    SIGND[1],
    SIGND[2],
];

/// The units of this host, by name.
#[derive(Debug)]
pub struct Units(HashMap<&'static str, Unit>);

impl Units {
    /// Asks systemd for the properties of all units.
    pub fn look() -> Result<Self, String> {
        let text = systemctl(&[&["show", PROPERTIES, "--"], &NAMES[..]].concat())?;
        // systemctl separates units by an empty line.
        let units: Vec<_> = text.split("\n\n").map(Unit::parse).collect();
        match units.len() == NAMES.len() {
            true => Ok(Self::of(NAMES.into_iter().zip(units))),
            false => Err(format!("it told of {} units", units.len())),
        }
    }

    /// Creates a collection of exactly these units.
    pub fn of(units: impl IntoIterator<Item = (&'static str, Unit)>) -> Self {
        Self(units.into_iter().collect())
    }

    /// Returns a unit, or one without properties if systemd does not know it.
    pub fn unit(&self, name: &str) -> Unit {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// Returns the active unit of obs-signd, or else the first one that is installed.
    pub fn signd(&self) -> Option<(&'static str, Unit)> {
        let units = SIGND.into_iter().map(|name| (name, self.unit(name)));
        units.filter(|(_, unit)| unit.is_installed()).min_by_key(|(_, unit)| !unit.is_active())
    }

    /// Returns the PID of the main process of obs-signd's unit, if it runs.
    pub fn signd_process(&self) -> Option<u32> {
        self.signd()?.1.process()
    }

    /// Returns the command that restarts obs-signd, or starts it if it does not run.
    pub fn restart_signd(&self) -> Option<String> {
        let (name, unit) = self.signd()?;
        let word = if unit.is_active() { "restart" } else { "start" };
        Some(format!("systemctl {word} {name}"))
    }
}

/// The properties of a unit.
#[derive(Clone, Debug, Default)]
pub struct Unit(HashMap<String, String>);

impl Unit {
    /// Parses the output of `systemctl show` for one unit. The values of a property that occurs several times
    /// are joined by newlines.
    pub fn parse(text: &str) -> Self {
        let mut unit: HashMap<String, String> = HashMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let known = unit.entry(name.to_owned()).or_default();
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(value);
        }
        Self(unit)
    }

    /// Returns a property, or an empty string if the unit does not have it.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn is_installed(&self) -> bool {
        self.get("LoadState") == "loaded"
    }

    pub fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "activating" | "reloading")
    }

    pub fn is_enabled(&self) -> bool {
        self.get("UnitFileState") == "enabled"
    }

    /// Returns the PID of the main process, while there is one.
    pub fn process(&self) -> Option<u32> {
        self.get("MainPID").parse().ok().filter(|pid| *pid != 0)
    }
}

/// Returns the command that restarts the obs-signd unit to which the process `pid` belongs.
pub fn restart_signd_of(pid: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    signd_unit_in(&groups).map(|unit| format!("systemctl restart {unit}"))
}

/// Returns the obs-signd unit that the text of `/proc/PID/cgroup` names.
fn signd_unit_in(groups: &str) -> Option<&str> {
    groups.split(['/', '\n']).find(|part| SIGND.contains(part))
}

/// Returns the mount point, at or above `path`, of a mount unit that exists but is not active.
pub fn unmounted(path: &Path) -> Option<String> {
    let above = path.ancestors().filter_map(Path::to_str).filter(|it| it.len() > 1);
    let show = ["show", "--property=Where,LoadState,ActiveState", "--"];
    // Given a path, systemctl looks up the mount unit for it.
    let text = systemctl(&show.into_iter().chain(above).collect::<Vec<_>>()).ok()?;
    let mut units = text.split("\n\n").map(Unit::parse);
    let missing = units.find(|unit| unit.is_installed() && !unit.is_active())?;
    Some(missing.get("Where").to_owned())
}

/// Returns the contents of the unit file and its drop-ins, in the order in which systemd reads them.
pub fn cat(unit: &str) -> Result<String, String> {
    systemctl(&["cat", "--no-pager", unit])
}

fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let arguments = arguments.iter().map(Into::into).collect();
    let stdout = run(Path::new("/usr/bin/systemctl"), arguments, PATIENCE)?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a tool of systemd and returns what it prints. Fails with the reason if the tool fails or takes longer
/// than `patience`.
pub fn run(tool: &Path, arguments: Vec<OsString>, patience: Duration) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + patience;
    let job = Job { program: tool, arguments, stdin: b"", deadline, background: None };
    match process::run(&job) {
        Ok(done) if done.end == Some(End::Exited(0)) => Ok(done.stdout),
        Ok(done) if done.end.is_none() => Err("it did not answer in time".into()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_of_obs_signd_is_found_in_a_control_group() {
        for unit in SIGND {
            let groups = format!("1:name=systemd:/\n0::/system.slice/{unit}\n");
            assert_eq!(signd_unit_in(&groups), Some(unit));
        }
        assert_eq!(signd_unit_in("0::/user.slice/x-signd.service\n"), None);
    }
}
