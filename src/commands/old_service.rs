//! The steps left for the administrator of a host of the old service once its keys have been taken over: its
//! cron job, its sudo rule, its sign.conf. Each step is a command that works as printed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keystore::remedy::{self, quote};
use nix::unistd::User;
use serde::Serialize;

use super::gpg::CALLED_AS;
use super::sign_conf::SignConf;

/// The configuration file of obs-signd.
const SIGN_CONF: &str = "/etc/sign.conf";
/// The file to install as a drop-in for obs-signd.
const DROP_IN: &str = "/usr/share/copr-keygen/10-copr-keygen.conf";
/// The directories that hold unit files.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// The names that units of obs-signd have.
const SIGND_UNITS: [&str; 3] = ["signd", "obssignd", "signd-copr"];

/// A step left for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Why the step is needed.
    why: String,
    /// The command line to run as root.
    command: String,
    /// Whether the step must wait until signing has been seen to work.
    later: bool,
}

impl Step {
    fn new(why: impl Into<String>, command: impl Into<String>) -> Self {
        Self { why: why.into(), command: command.into(), later: false }
    }

    /// Returns the step for a terminal: a comment with the command below it. The command of a later step is
    /// commented out as well, so that all lines can be pasted into a shell as they are.
    pub fn text(&self) -> String {
        let now = if self.later { "#     " } else { "" };
        format!("# {}\n{now}{}\n", self.why, self.command)
    }
}

/// Returns the steps that are left on this host. Must run as root, which can look everywhere. `root` is `/`
/// outside of tests. Steps about the host are returned for the package's state directory only: another one
/// may be a copy for a rehearsal.
pub fn steps(root: &Path, state: &Path) -> Vec<Step> {
    let host = OldHost { root, state };
    let mut steps = Vec::new();
    if state == Path::new(remedy::STATE) {
        host.files(&mut steps);
        host.account(&mut steps);
        host.programs(&mut steps);
        host.sign_conf(&mut steps);
        host.units(&mut steps);
    }
    steps.push(Step::new("see whether all is well", remedy::command(state, "check")));
    let last = Step::new(
        "days later, when signing has been seen to work: destroy the old, unprotected keys with",
        remedy::command(state, "purge --older-than 0d --old-service"),
    );
    steps.push(Step { later: true, ..last });
    steps
}

struct OldHost<'a> {
    root: &'a Path,
    state: &'a Path,
}

impl OldHost<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// Adds steps for files of the old package that work on the old keyring or grant access to others.
    fn files(&self, steps: &mut Vec<Step>) {
        for (path, why) in [
            ("/etc/cron.daily/copr-keygen", "it prolonged the keys of the old keyring"),
            ("/etc/sudoers.d/copr_signer", "it lets copr-signer run gpg as root"),
            ("/etc/logrotate.d/copr-keygen", "the log is in the journal now"),
        ] {
            if self.exists(path) {
                steps.push(Step::new(why, format!("rm {path}")));
            }
        }
        let settings = "/etc/copr-keygen";
        if fs::metadata(self.at(settings)).is_ok_and(|found| found.mode() & 0o055 != 0o055) {
            steps.push(Step::new(
                "config.toml in it is to be read by every mode; it holds no secret",
                format!("chmod 0755 {settings}"),
            ));
        }
    }

    /// Adds a step if copr-signer still has the login shell that the old package gave it.
    fn account(&self, steps: &mut Vec<Step>) {
        let account = "copr-signer";
        let Ok(Some(user)) = User::from_name(account) else { return };
        let shell = user.shell.file_name().unwrap_or_default();
        if self.root == Path::new("/") && shell != "nologin" && shell != "false" {
            steps.push(Step::new(
                format!("nobody logs in as {account}"),
                format!("usermod --shell /usr/sbin/nologin {account}"),
            ));
        }
    }

    /// Adds steps for the programs that signd runs, if they are still those of the old package.
    fn programs(&self, steps: &mut Vec<Step>) {
        for name in CALLED_AS {
            let path = format!("/usr/bin/{name}");
            let leads = fs::read_link(self.at(&path)).ok();
            let is_ours = leads.is_some_and(|to| to.file_name() == Some("copr-keygen".as_ref()));
            if self.exists(&path) && !is_ours && self.exists("/usr/bin/copr-keygen") {
                steps.push(Step::new(
                    "signd runs it, and it looks for the old keyring",
                    format!("ln -sfT copr-keygen {path}"),
                ));
            }
        }
    }

    /// Adds a step if the lines of sign.conf do not lead to the keys of this state yet.
    fn sign_conf(&self, steps: &mut Vec<Step>) {
        let Ok(conf) = SignConf::read(&self.at(SIGN_CONF)) else { return };
        let part = |name: &str| self.state.join(name);
        let is_gpg_copr = |path: &Path| path.file_name() == Some(CALLED_AS[0].as_ref());
        let is_done = conf.path("phrases:") == Some(&part("phrases"))
            && conf.path("gnupghome:") == Some(&part("gnupg"))
            && conf.path("gpg:").is_some_and(is_gpg_copr)
            && conf.word("pidfile:") == Some("/run/signd/signd.pid")
            && conf.word("tmpdir:") == Some("/run/signd");
        if is_done {
            return;
        }
        let state = self.state.display();
        let lines = [
            format!("phrases: {state}/phrases"),
            "gpg: /usr/bin/gpg-copr".into(),
            format!("gnupghome: {state}/gnupg"),
            format!("keycache: {state}/gnupg/keycache"),
            "tmpdir: /run/signd".into(),
            "pidfile: /run/signd/signd.pid".into(),
        ];
        let lines: Vec<_> = lines.iter().map(|line| quote(line)).collect();
        steps.push(Step::new(
            "signd runs as copr-signer and signs through its agent; your other lines stay",
            format!(
                "{{ test -e {SIGN_CONF}.before || cp -p {SIGN_CONF} {SIGN_CONF}.before; }} && \
                 T=$(grep -Ev '^(phrases|gpg|gnupghome|keycache|tmpdir|pidfile):' {SIGN_CONF} || :) && \
                 printf '%s\\n' \"$T\" {} >{SIGN_CONF}",
                lines.join(" ")
            ),
        ));
    }

    /// Adds steps that put signd under the drop-in and start the units of copr-keygen.
    fn units(&self, steps: &mut Vec<Step>) {
        if !self.exists("/run/systemd/system") {
            return;
        }
        let has = |name: &str| UNITS.iter().any(|units| self.exists(&format!("{units}/{name}")));
        let signd: Vec<_> = SIGND_UNITS.iter().filter(|it| has(&format!("{it}.service"))).collect();
        for unit in &signd {
            let drop_in = format!("{unit}.service.d/10-copr-keygen.conf");
            if !has(&drop_in) {
                steps.push(Step::new(
                    format!("{unit} runs without root, in a sandbox"),
                    format!("install -D -m 0644 {DROP_IN} /etc/systemd/system/{drop_in}"),
                ));
            }
        }
        steps.push(Step::new("systemd reads its units again", "systemctl daemon-reload"));
        let is_on = |unit: &&&&str| {
            let places = [
                "/etc/systemd/system/multi-user.target.wants",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup/unified/system.slice",
            ];
            places.iter().any(|place| self.exists(&format!("{place}/{unit}.service")))
        };
        let running: Vec<_> = signd.iter().filter(is_on).collect();
        let names = if running.is_empty() { signd.iter().collect() } else { running };
        for unit in names {
            steps.push(Step::new(
                "signd reads sign.conf again, and its agent finds the keys",
                format!("systemctl restart {unit}"),
            ));
        }
        steps.push(Step::new(
            "keys are made, prolonged and made in advance",
            "systemctl reset-failed 'copr-keygen*'; systemctl enable --now copr-keygen.socket \
             copr-keygen-prolong.timer copr-keygen-pool.path copr-keygen-pool.service",
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commands(root: &Path) -> Vec<String> {
        let steps = steps(root, Path::new(remedy::STATE));
        steps.into_iter().map(|step| step.command).collect()
    }

    #[test]
    fn each_leftover_of_the_old_package_has_a_command() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let none = commands(root);
        let last = "copr-keygen purge --older-than 0d --old-service";
        assert_eq!(none, ["copr-keygen check", last]);
        // For a copy of the state, no step touches the host.
        write(root, "/etc/cron.daily/copr-keygen", "");
        assert_eq!(steps(root, Path::new("/var/tmp/copy")).len(), 2);
        for path in [
            "/etc/cron.daily/copr-keygen",
            "/etc/sudoers.d/copr_signer",
            "/etc/logrotate.d/copr-keygen",
            "/usr/bin/copr-keygen",
            "/usr/bin/gpg_copr.sh",
            "/run/systemd/system/x",
            "/usr/lib/systemd/system/signd-copr.service",
        ] {
            write(root, path, "");
        }
        write(root, SIGN_CONF, "allow: 192.0.2.1\nphrases: /var/lib/copr-keygen/phrases\n");
        let all = commands(root).join("\n");
        for command in [
            "rm /etc/cron.daily/copr-keygen",
            "rm /etc/sudoers.d/copr_signer",
            "rm /etc/logrotate.d/copr-keygen",
            "ln -sfT copr-keygen /usr/bin/gpg_copr.sh",
            "cp -p /etc/sign.conf",
            "/etc/systemd/system/signd-copr.service.d/10-copr-keygen.conf",
            "systemctl daemon-reload",
            "systemctl restart signd-copr",
        ] {
            assert!(all.contains(command), "{command} is not in\n{all}");
        }
    }

    #[test]
    fn the_command_for_sign_conf_makes_one_that_leads_to_the_keys() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, SIGN_CONF, "allow: 192.0.2.1\nphrases: /old\ngpg: /usr/bin/gpg_copr.sh\n");
        let find = || commands(root).into_iter().find(|line| line.contains("cp -p"));
        let conf = root.join("etc/sign.conf");
        let command = find().unwrap().replace(SIGN_CONF, conf.to_str().unwrap());
        // A second run keeps what the first one has set aside, and what was added after it.
        for _ in 0..2 {
            fs::write(&conf, fs::read_to_string(&conf).unwrap() + "proxyport: 5168\n").unwrap();
            let status = std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
            assert!(status.success(), "{command}");
        }
        let before = fs::read_to_string(root.join("etc/sign.conf.before")).unwrap();
        assert!(before.contains("phrases: /old\n"), "{before}");
        let conf = SignConf::read(&conf).unwrap();
        assert_eq!(conf.allow(), ["192.0.2.1"]);
        assert_eq!(conf.word("proxyport:"), Some("5168"));
        assert_eq!(conf.path("phrases:").unwrap(), Path::new("/var/lib/copr-keygen/phrases"));
        assert_eq!(find(), None, "it is done");
    }
}
