//! Completion in bash, tested in an interactive shell.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::host::{Host, Transport, eventually};
use super::terminal::Terminal;

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "@group#other@copr.example.org";

/// Types a line and tabulators into an interactive bash. Returns the line as bash shows it then, without the
/// prompt.
fn completed(host: &Host, line: &str, tabs: &str) -> String {
    let terminal = Terminal::new(200);
    let binary = Path::new(env!("CARGO_BIN_EXE_copr-keygen"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions/copr-keygen.bash");
    let mut bash = Command::new("bash");
    bash.args(["--noprofile", "--norc", "-i"]).env_clear().current_dir("/");
    bash.env("PATH", format!("{}:/usr/bin:/bin", binary.parent().unwrap().display()));
    bash.env("TERM", "dumb").env("PS1", "$ ").env("HISTFILE", "/dev/null");
    bash.env("COPR_KEYGEN_CONFIG", "/dev/null").env("COPR_KEYGEN_STATE_DIR", host.state());
    let mut bash = terminal.start(&mut bash);
    terminal.type_in(&format!(
        "bind 'set bell-style none'; source {}; echo re''ady\n",
        script.display()
    ));
    let prompt = "\nready\r\n$ ";
    let before = eventually("bash", || terminal.shown().find(prompt).map(|at| at + prompt.len()));
    // Bash shows the `~` only after it has dealt with the tabulators.
    terminal.type_in(&format!("{line}{tabs}~"));
    let shown = eventually("completion", || {
        let shown = terminal.shown()[before..].to_owned();
        shown.ends_with('~').then_some(shown)
    });
    bash.kill().unwrap();
    bash.wait().unwrap();
    shown.trim_end_matches('~').replace('\r', "")
}

#[test]
fn bash_completes_modes_options_and_names() {
    let host = Host::start(Transport::PassedUnix);
    for id in [ID, OTHER] {
        assert_eq!(host.gen_key_patiently(id, &json!({})).status, 201, "{}", host.log());
    }
    for (line, whole) in [
        ("copr-keygen pro", "copr-keygen prolong "),
        ("copr-keygen prolong --w", "copr-keygen prolong --within "),
        ("copr-keygen fill-pool --st", "copr-keygen fill-pool --state-dir "),
        ("copr-keygen --config /x list --na", "copr-keygen --config /x list --names "),
        ("copr-keygen list --sort cr", "copr-keygen list --sort created "),
        ("copr-keygen show us", "copr-keygen show user#project@copr.example.org "),
        ("copr-keygen show user#project@c", "copr-keygen show user#project@copr.example.org "),
        ("copr-keygen show @", "copr-keygen show @group#other@copr.example.org "),
        ("copr-keygen show 'us", "copr-keygen show 'user#project@copr.example.org' "),
        ("copr-keygen pubkey @gr", "copr-keygen pubkey @group#other@copr.example.org "),
        (
            "copr-keygen remove --yes @group#other@copr.example.org us",
            "copr-keygen remove --yes @group#other@copr.example.org user#project@copr.example.org ",
        ),
        // There is nothing to complete, and bash does not fall back to file names.
        ("copr-keygen show et", "copr-keygen show et"),
        ("copr-keygen make @gr", "copr-keygen make @gr"),
    ] {
        let shown = completed(&host, line, "\t");
        assert!(shown == whole, "{line}: {shown:?}");
    }
    // An option says which state is meant.
    let empty = super::certificate::empty_directory();
    let other = format!("--state-dir {}", empty.path().display());
    for option in [other.clone(), other.replace(' ', "=")] {
        for line in
            [format!("copr-keygen {option} show us"), format!("copr-keygen show {option} us")]
        {
            assert_eq!(completed(&host, &line, "\t"), line);
        }
    }
    let here = format!("copr-keygen show --state-dir={}", host.state().display());
    assert_eq!(completed(&host, &here[..here.len() - 3], "\t"), format!("{here}/"));
    assert_eq!(completed(&host, &format!("{here} us"), "\t"), format!("{here} {ID} "));
    let both = completed(&host, "copr-keygen show ", "\t\t");
    assert!(both.contains(ID) && both.contains(OTHER), "{both}");
}

#[test]
fn without_a_state_no_name_is_offered_and_nothing_is_said() {
    let host = Host::new(Transport::PassedUnix, &[]);
    let shown = completed(&host, "copr-keygen show us", "\t\t");
    assert!(shown == "copr-keygen show us", "{shown:?}");
}
