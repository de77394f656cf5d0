//! Programs that tests write and run. While a file is open for writing nobody can run it, and whatever
//! another thread of this process starts at that moment has it open for a while: so other processes write.

use std::io::Write;
use std::path::Path;
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

/// Copies a program to where everybody who gets there may run it.
pub fn copy(program: &Path, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status();
    assert!(copied.unwrap().success());
    let opened = Command::new("chmod").arg("755").arg(to).status();
    assert!(opened.unwrap().success());
}
