//! Runs a program that reads a long stream from this process and writes its output elsewhere. A program that
//! makes no progress for too long is killed.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::process::{Event, Finished, Running, set_nonblocking};

/// How many bytes of the program's standard error are kept.
const WORDS_MAX: usize = 4096;

/// A running program whose standard input this process writes. Dropping it kills the program.
pub struct Feed {
    running: Running,
    stdin: ChildStdin,
    /// How long the program may go without reading a byte, and how long it may run after the end of its input.
    patience: Duration,
    timed_out: bool,
    /// Whether a write has failed.
    broken: bool,
}

impl Feed {
    /// Starts a program. `patience` is how long it may go without reading a byte, and run after the end of its
    /// input.
    pub fn start(mut command: Command, patience: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped());
        let mut running = Running::start(command, WORDS_MAX)?;
        let stdin = running.group.child.stdin.take();
        let stdin = stdin.ok_or_else(|| io::Error::other("a child without pipes"))?;
        set_nonblocking(&stdin)?;
        Ok(Self { running, stdin, patience, timed_out: false, broken: false })
    }

    /// Whether a write has failed; [`Feed::finish`] returns the reason.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Closes the program's standard input and waits for the program to end.
    pub fn finish(mut self) -> io::Result<Finished> {
        drop(self.stdin);
        let last = match self.timed_out {
            true => Ok(Event::TimedOut),
            false => self.running.wait(Instant::now() + self.patience, None),
        };
        self.running.finish(last)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.timed_out {
            let room = PollFd::new(self.stdin.as_fd(), PollFlags::POLLOUT);
            match self.running.wait(Instant::now() + self.patience, Some(room))? {
                Event::Ready => {}
                Event::Ended => {
                    return Err(io::Error::other("it ended before it had read everything"));
                }
                Event::TimedOut => {
                    self.timed_out = true;
                    break;
                }
            }
            match self.stdin.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Callers take `BrokenPipe` to mean that the reader of their own output is gone.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(io::Error::other("it stopped reading"));
                }
                written => return written,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Write for Feed {
    /// Fails if the program has ended, or reads nothing for too long.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_some(bytes);
        self.broken |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{End, command};
    use std::path::Path;

    fn feed(script: &str, patience: u64) -> io::Result<Feed> {
        let mut shell = command(Path::new("/bin/sh"), false);
        shell.args(["-c", script]).stdout(Stdio::null());
        Feed::start(shell, Duration::from_millis(patience))
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
