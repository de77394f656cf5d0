//! Runs a program that reads a long stream from us and writes its output elsewhere. Never waits
//! longer than a limit for the program to move on, and leaves nothing of it alive.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use crate::process::{Finished, Group, pidfd_open, spawn, wait_readable};

/// What is kept of what the program says on stderr; the rest is read and dropped.
const WORDS_MAX: usize = 4096;

/// A running program that is fed through its stdin. Dropped, it is killed.
pub struct Feed {
    group: Group,
    stdin: Option<ChildStdin>,
    ended: OwnedFd,
    words: Vec<u8>,
    words_open: bool,
    /// How long it may take no byte, or take to end after the last one.
    patience: Duration,
    timed_out: bool,
    /// Whether something could not be written to it.
    broken: bool,
}

/// What a program is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Room,
    End,
}

impl Feed {
    /// Starts `program` with `stdout` as its stdout.
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        stdout: Stdio,
        patience: Duration,
    ) -> io::Result<Self> {
        let child = spawn(program, arguments, Stdio::piped(), stdout, Stdio::piped(), false)?;
        let mut group = Group::new(child);
        let (stdin, ended) = prepare(&mut group)?;
        Ok(Self {
            group,
            stdin: Some(stdin),
            ended,
            words: Vec::new(),
            words_open: true,
            patience,
            timed_out: false,
            broken: false,
        })
    }

    /// Whether writing to it has failed, which [`Feed::finish`] explains.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Ends its input and waits for it to end.
    pub fn finish(mut self) -> io::Result<Finished> {
        drop(self.stdin.take());
        let waited = if self.timed_out { Ok(()) } else { self.wait(Wait::End).map(drop) };
        let end = self.group.finish();
        self.read_words()?;
        match waited {
            Err(e) if !self.timed_out => return Err(e),
            _ => {}
        }
        let end = if self.timed_out { None } else { end };
        Ok(Finished {
            end,
            stopped: false,
            stdout: Vec::new(),
            stderr: std::mem::take(&mut self.words),
        })
    }

    /// Waits until it can take more (`true`) or has ended (`false`).
    fn wait(&mut self, what: Wait) -> io::Result<bool> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.timed_out = true;
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let mut fds = vec![PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
            if let (Wait::Room, Some(stdin)) = (what, &self.stdin) {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
            }
            if let (true, Some(words)) = (self.words_open, &self.group.child.stderr) {
                fds.push(PollFd::new(words.as_fd(), PollFlags::POLLIN));
            }
            wait_readable(&mut fds, left)?;
            if fds[0].any().unwrap_or(true) {
                return Ok(false);
            }
            let room = what == Wait::Room && fds[1].any().unwrap_or(true);
            self.read_words()?;
            if room {
                return Ok(true);
            }
        }
    }

    /// Reads what it has said without waiting.
    fn read_words(&mut self) -> io::Result<()> {
        let Some(from) = &mut self.group.child.stderr else { return Ok(()) };
        let mut chunk = [0; 1024];
        while self.words_open {
            match from.read(&mut chunk) {
                Ok(0) => self.words_open = false,
                Ok(count) => {
                    let room = WORDS_MAX.saturating_sub(self.words.len());
                    self.words.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn prepare(group: &mut Group) -> io::Result<(ChildStdin, OwnedFd)> {
    let ended = pidfd_open(&group.child)?;
    let (Some(stdin), Some(words)) = (group.child.stdin.take(), &group.child.stderr) else {
        return Err(io::Error::other("a child without pipes"));
    };
    fcntl(stdin.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(words.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((stdin, ended))
}

impl Write for Feed {
    /// Fails when the program has ended, or takes nothing for too long; [`Feed::finish`] tells why.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_some(bytes);
        self.broken |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Feed {
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.timed_out {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            if !self.wait(Wait::Room)? {
                return Err(io::Error::other("it ended before it had read everything"));
            }
            let Some(stdin) = &mut self.stdin else { return Ok(0) };
            match stdin.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Not an error of that kind: nobody may take it for our own reader having left.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(io::Error::other("it stopped reading"));
                }
                written => return written,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::End;

    fn feed(script: &str, patience: u64) -> io::Result<Feed> {
        let arguments = ["-c".into(), script.into()];
        let patience = Duration::from_millis(patience);
        Feed::start(Path::new("/bin/sh"), &arguments, Stdio::null(), patience)
    }

    #[test]
    fn a_long_stream_arrives_whole() -> io::Result<()> {
        let mut feed = feed("wc -c >&2", 20_000)?;
        for _ in 0..1000 {
            feed.write_all(&[b'x'; 1024])?;
        }
        let done = feed.finish()?;
        assert_eq!((done.end, done.stderr), (Some(End::Exited(0)), b"1024000\n".to_vec()));
        Ok(())
    }

    #[test]
    fn who_reads_nothing_or_never_ends_is_killed() -> io::Result<()> {
        let mut deaf = feed("echo words >&2; sleep 60", 300)?;
        let written = (0..1000).try_for_each(|_| deaf.write_all(&[0; 1024]));
        assert_eq!(written.err().map(|e| e.kind()), Some(io::ErrorKind::TimedOut));
        let done = deaf.finish()?;
        assert_eq!((done.end, done.stderr), (None, b"words\n".to_vec()));
        let endless = feed("cat; sleep 60", 300)?;
        assert_eq!(endless.finish()?.end, None);
        Ok(())
    }

    #[test]
    fn who_ends_early_or_says_much_is_in_nobodys_way() -> io::Result<()> {
        let mut brief = feed("exit 3", 20_000)?;
        let written = (0..1000).try_for_each(|_| brief.write_all(&[0; 1024]));
        assert!(written.is_err_and(|e| e.kind() == io::ErrorKind::Other));
        assert_eq!(brief.finish()?.end, Some(End::Exited(3)));
        let mut loud = feed("head -c 1000000 /dev/zero >&2; cat", 20_000)?;
        loud.write_all(&[0; 200_000])?;
        let done = loud.finish()?;
        assert_eq!((done.end, done.stderr.len()), (Some(End::Exited(0)), WORDS_MAX));
        Ok(())
    }
}
