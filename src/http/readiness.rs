//! `GET /ready`: whether a key could be made now, for load balancers that ask every second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;

/// How long a check may take before the service reports that it gets no answer. A network file system whose
/// server is away makes everybody wait, and so does an etcd without a leader.
const PATIENCE: Duration = Duration::from_secs(2);

/// The result of the last check.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<LastLook>);

#[derive(Debug, Default)]
struct LastLook {
    /// When the check that is in progress began.
    looking: Option<Instant>,
    /// Why no key could be made, or `None` if one could.
    why_not: Option<String>,
}

impl Readiness {
    /// Returns why no key can be made, or `None` if one can. If several requests arrive at once, only one of
    /// them runs `look`. The others get the result of the last check, so that a check that hangs blocks one
    /// thread only.
    pub fn ask(&self, look: impl FnOnce() -> Result<(), String>) -> Option<String> {
        {
            let mut last = unpoisoned(self.0.lock());
            match last.looking {
                Some(since) if since.elapsed() > PATIENCE => {
                    let seconds = since.elapsed().as_secs();
                    return Some(format!(
                        "the state directory, or etcd where it decides, has not answered for {seconds} s"
                    ));
                }
                Some(_) => return last.why_not.clone(),
                None => last.looking = Some(Instant::now()),
            }
        }
        let why_not = look().err();
        let mut last = unpoisoned(self.0.lock());
        last.looking = None;
        if last.why_not != why_not {
            match &why_not {
                Some(why_not) => log::error!("not ready: {why_not}"),
                None => log::info!("ready again"),
            }
        }
        last.why_not.clone_from(&why_not);
        why_not
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_look_that_does_not_end_holds_one_thread_and_is_told_to_the_others() {
        let readiness = Readiness::default();
        let (begun, has_begun) = channel();
        let (end, may_end) = channel::<()>();
        let readiness = &readiness;
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                readiness.ask(|| {
                    let _ = begun.send(());
                    let _ = may_end.recv();
                    Err("gone".into())
                })
            });
            assert!(has_begun.recv().is_ok());
            let not_asked = || readiness.ask(|| unreachable!("somebody looks already"));
            assert_eq!(not_asked(), None, "what the last look has shown");
            let since = Instant::now().checked_sub(PATIENCE + Duration::from_secs(3));
            unpoisoned(readiness.0.lock()).looking = since;
            if since.is_some() {
                let told = not_asked();
                assert!(told.is_some_and(|why| why.contains("not answered for 5 s")));
            }
            assert!(end.send(()).is_ok());
            assert_eq!(first.join().ok().flatten().as_deref(), Some("gone"));
        });
        assert_eq!(readiness.ask(|| Ok(())), None);
    }
}
