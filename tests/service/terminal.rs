//! A terminal as a person has it: of some size, with a program on it, and somebody who types.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};

use super::host::eventually;

/// A terminal, and what it has shown so far.
pub struct Terminal {
    ours: File,
    theirs: File,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// A terminal with this number of columns.
    pub fn new(columns: u16) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let (ours, theirs) = (File::from(pair.master), File::from(pair.slave));
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, screen) = (ours.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                screen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { ours, theirs, shown }
    }

    /// Starts a program on the terminal.
    pub fn start(&self, command: &mut Command) -> Child {
        let theirs = || self.theirs.as_fd().try_clone_to_owned().unwrap();
        command.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().unwrap()
    }

    /// Runs a program to its end, and returns all that it showed.
    pub fn run(columns: u16, command: &mut Command) -> String {
        let terminal = Self::new(columns);
        let status = terminal.start(command).wait().unwrap();
        (&terminal.theirs).write_all(b"\n~end~\n").unwrap();
        let text = eventually("all that was shown", || {
            let shown = terminal.shown();
            shown.find("\r\n~end~").map(|end| shown[..end].replace('\r', ""))
        });
        assert!(status.success(), "{text}");
        text
    }

    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    pub fn type_in(&self, text: &str) {
        (&self.ours).write_all(text.as_bytes()).unwrap();
    }
}
