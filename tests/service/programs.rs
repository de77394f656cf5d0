//! Programs that tests write and run. While a file is open for writing nobody can run it, and whatever
//! another thread of this process starts at that moment has it open for a while: so other processes write.

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

/// Copies our programs into a directory, where everybody who gets there may run them. Returns the path of `copr-keygen`.
pub fn install(directory: &Path) -> PathBuf {
    let programs = [env!("CARGO_BIN_EXE_copr-keygen"), env!("CARGO_BIN_EXE_copr-keygen-signd")];
    let mut install = Command::new("install");
    install.args(["--mode=755", "--target-directory"]).arg(directory).args(programs);
    assert!(install.status().unwrap().success());
    directory.join("copr-keygen")
}
