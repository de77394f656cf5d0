//! Work in progress, made, looked at and cleared.

use super::*;
use crate::home::Homes;
use crate::home::on_disk::OnDisk;
use crate::home::staging::clear::StagingWork;
use crate::identity::NameEmail;
use crate::layout::PARTS;
use crate::scratch::scratch;
use crate::view::publish::{Publication, Publisher};
use crate::view::signd_view::SigndView;

pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        let root = scratch();
        for directory in PARTS {
            assert!(fs::create_dir_all(root.path().join(directory)).is_ok());
        }
        Self(root)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn staging(&self) -> Staging {
        Staging::new(self.path().join("staging"))
    }

    pub fn count(&self) -> usize {
        fs::read_dir(self.path().join("staging")).map_or(0, Iterator::count)
    }
}

#[test]
fn a_held_home_survives_clearing_and_goes_when_dropped() -> Result<()> {
    let scratch = Scratch::new();
    let (staging, signd) = (scratch.staging(), SigndView::new(scratch.path()));
    let held = staging.create()?;
    assert_eq!(scratch.staging().clear(signd.secret_keys())?, 0);
    assert!(held.path().is_dir());
    drop(held);
    assert_eq!(scratch.count(), 0);
    Ok(())
}

#[test]
fn who_looks_takes_no_home_from_its_maker_and_takes_none_for_dead() -> Result<()> {
    let scratch = Scratch::new();
    let staging = scratch.staging();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let found = staging.survey();
                let is_alive = |found: &Vec<(PathBuf, StagingWork)>| {
                    found.iter().all(|(_, work)| *work == StagingWork::Alive)
                };
                assert!(found.as_ref().is_ok_and(is_alive), "{found:?}");
            }
        });
        // In one thread: what one survey finds dead may be that of another one only looking.
        for _ in 0..500 {
            assert!(staging.create().is_ok_and(|staged| staged.path().is_dir()));
        }
        done.store(true, Ordering::Relaxed);
        assert!(looks.join().is_ok());
    });
    assert_eq!(scratch.count(), 0);
    Ok(())
}

#[test]
fn who_publishes_second_loses_and_leaves_no_trace() -> Result<()> {
    let scratch = Scratch::new();
    let (staging, signd) = (scratch.staging(), SigndView::new(scratch.path()));
    let homes = Homes::new(scratch.path());
    let on_disk = OnDisk::new(Vec::new());
    let publisher = Publisher { homes: &homes, signd: &signd, on_disk: &on_disk };
    let name = NameEmail::parse("a#b@c")?;
    let mut results = Vec::new();
    for digit in ["1", "2"] {
        let grip = Keygrip::parse(&digit.repeat(40));
        let (Some(grip), staged) = (grip, staging.create()?) else { continue };
        let secret = staged.path().join("private-keys-v1.d");
        assert!(fs::create_dir(&secret).is_ok());
        assert!(fs::write(secret.join(grip.file_name()), digit).is_ok());
        results.push(publisher.publish(staged.path(), staged.scratch(), &name, &grip)?);
    }
    assert_eq!(results, [Publication::Done, Publication::Lost]);
    let links: Vec<_> = fs::read_dir(scratch.path().join("gnupg/private-keys-v1.d"))
        .map(|entries| entries.flatten().map(|e| e.file_name()).collect())
        .unwrap_or_default();
    assert_eq!(links, [format!("{}.key", "1".repeat(40)).as_str()]);
    assert_eq!(scratch.count(), 0);
    Ok(())
}

#[test]
fn a_deep_state_directory_is_refused_in_words() {
    assert!(check_path_length(Path::new("/var/lib/copr-keygen")).is_ok());
    let deep = format!("/{}", "d".repeat(80));
    let error = check_path_length(Path::new(&deep)).err().map(|e| e.to_string());
    assert!(error.is_some_and(|text| text.contains("use a shorter path")));
}
