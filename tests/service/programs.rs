//! Programs that tests write and run. A file that is open for writing cannot be executed. If another thread
//! of this process starts a program at that moment, the child has the file open for a while. So other
//! processes write it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes a script for /bin/sh that everybody may run.
pub fn write_script(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", r#"umask 077; cat >"$0" && chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let script = format!("#!/bin/sh\n{text}\n");
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Copies our programs into a directory. Everybody who can reach it may run them. Returns the path of
/// `copr-keygen`.
pub fn install(directory: &Path) -> PathBuf {
    let programs = [env!("CARGO_BIN_EXE_copr-keygen"), env!("CARGO_BIN_EXE_copr-keygen-signd")];
    let mut install = Command::new("install");
    install.args(["--mode=755", "--target-directory"]).arg(directory).args(programs);
    assert!(install.status().unwrap().success());
    directory.join("copr-keygen")
}
