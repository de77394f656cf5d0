//! Homes that are removed, brought back, made anew and prolonged while clients sign, and a disk that cannot
//! be written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::host::{Host, Transport};
use super::safekeeping::{run, set_expiry, tree};
use super::signer_client::{Packet, old, verify};
use super::signer_host::{ABSENT, ID, OTHER, SignerHost, ask, fingerprint, host_with, sign};
use super::volumes::shim;

/// The data that was signed, and the signature packet.
type Signed = (Vec<u8>, Vec<u8>);

/// The answers that clients have got while something was done.
#[derive(Default)]
struct Told {
    /// Signatures and what was signed, by the key ID of the issuer.
    signatures: Mutex<BTreeMap<String, Vec<Signed>>>,
    refusals: Mutex<BTreeMap<String, usize>>,
}

/// Signs with the key of `id` in four threads until `work` has been done.
fn sign_while(host: &SignerHost, id: &str, work: impl FnOnce()) -> Told {
    let told = Told::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..4 {
            let (told, done) = (&told, &done);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::SeqCst) {
                    let data = format!("{client} {round}").into_bytes();
                    round += 1;
                    match host.sign(id, &data) {
                        Ok(packet) => {
                            let issuer = Packet::parse(&packet).issuer;
                            let mut signatures = told.signatures.lock().unwrap();
                            signatures.entry(issuer).or_default().push((data, packet));
                        }
                        Err(refused) => {
                            *told.refusals.lock().unwrap().entry(refused).or_default() += 1;
                        }
                    }
                }
            });
        }
        // A panic of this thread must not leave the others at work.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        worked.unwrap();
    });
    told
}

impl Told {
    /// Asserts that there are signatures, and that all are by keys with these certificates. Verifies some of
    /// them.
    fn assert_right(&self, certificates: &BTreeMap<String, Vec<u8>>) {
        let signatures = self.signatures.lock().unwrap();
        for (issuer, made) in &*signatures {
            let of_it = |(print, _): &(&String, &Vec<u8>)| print.ends_with(issuer);
            let (_, certificate) = certificates.iter().find(of_it).unwrap();
            for (data, packet) in made.iter().step_by(made.len().div_ceil(10)) {
                verify(certificate, data, packet).unwrap();
            }
        }
        assert!(!signatures.is_empty());
    }

    fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap().keys().cloned().collect()
    }
}

fn certificate(host: &SignerHost, id: &str) -> (String, Vec<u8>) {
    (fingerprint(&host.keys, id), host.pubkey(id).unwrap())
}

#[test]
fn a_key_that_is_removed_and_brought_back_signs_or_is_unknown() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    let certificates = BTreeMap::from([certificate(&host, ID)]);
    let told = sign_while(&host, ID, || {
        for _ in 0..8 {
            run(&host.keys, &["remove", "--yes", ID]).well();
            run(&host.keys, &["undo", ID]).well();
        }
    });
    told.assert_right(&certificates);
    assert_eq!(told.refusals(), [format!("unknown key: {ID}")]);
    host.assert_signs(ID);
    host.assert_signs(OTHER);
}

#[test]
fn a_key_that_is_removed_and_made_anew_signs_as_either_or_is_unknown() {
    let host = SignerHost::with_key();
    let mut certificates = BTreeMap::from([certificate(&host, ID)]);
    let told = sign_while(&host, ID, || {
        for _ in 0..5 {
            run(&host.keys, &["remove", "--yes", ID]).well();
            assert_eq!(host.keys.gen_key_patiently(ID, &json!({})).status, 201);
            certificates.extend([certificate(&host, ID)]);
        }
    });
    assert_eq!(certificates.len(), 6);
    told.assert_right(&certificates);
    assert_eq!(told.refusals(), [format!("unknown key: {ID}")]);
    host.assert_signs(ID);
}

/// The homes of two keys take turns under one name. What is read is always of one of them, and only the key
/// that belongs there signs.
#[test]
fn a_home_that_is_exchanged_for_another_is_not_mixed_with_it() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    let certificates = BTreeMap::from([certificate(&host, ID)]);
    let [first, second] = [ID, OTHER].map(|id| host.keys.home(id));
    let told = sign_while(&host, ID, || {
        let begun = Instant::now();
        while begun.elapsed().as_secs() < 6 {
            exchange(&first, &second);
            // Long enough for the file system to give another time stamp.
            thread::sleep(Duration::from_millis(10));
        }
    });
    told.assert_right(&certificates);
    let refusals = told.refusals();
    let is_right = |refusal: &&str| refusal.contains("holds the certificate of another identity");
    assert!(refusals.iter().all(|refusal| is_right(&refusal.as_ref())), "{refusals:?}");
}

/// Exchanges two directories, such that both paths exist all the time.
fn exchange(first: &Path, second: &Path) {
    renameat2(AT_FDCWD, first, AT_FDCWD, second, RenameFlags::RENAME_EXCHANGE).unwrap();
}

#[test]
fn a_key_that_is_prolonged_signs_all_the_while() {
    let host = SignerHost::with_key();
    let certificates = BTreeMap::from([certificate(&host, ID)]);
    let told = sign_while(&host, ID, || (0..6).for_each(|n| set_expiry(&host.keys, ID, 100 + n)));
    told.assert_right(&certificates);
    assert_eq!(told.refusals(), [""; 0]);
    assert_ne!(host.pubkey(ID).unwrap(), certificates.into_values().next().unwrap());
}

#[test]
fn keys_sign_where_nothing_can_be_written() {
    let keys = host_with(&[ID, OTHER]);
    let mut signd = Host::signd(&keys, Transport::ListenUnix, &[]);
    let told = shim(&mut signd);
    let make_unwritable = |errno: i32| {
        let words = format!("fails {errno} {}", keys.state().display());
        fs::write(told.join("unwritable"), words).unwrap();
    };
    signd.launch();
    let before = tree(&keys.state());
    for errno in [libc::ENOSPC, libc::EROFS, libc::EDQUOT] {
        make_unwritable(errno);
        for id in [ID, OTHER] {
            let packet = sign(&signd, id, b"data").unwrap();
            let certificate = ask(&signd, &old(id, "PUBKEY")).unwrap();
            verify(&certificate, b"data", &packet).unwrap();
        }
        assert_eq!(sign(&signd, ABSENT, b"").unwrap_err(), format!("unknown key: {ABSENT}"));
    }
    assert_eq!(tree(&keys.state()), before);
    // signd can also be started there.
    assert!(signd.stop().success(), "{}", signd.log());
    signd.launch();
    assert!(sign(&signd, ID, b"data").is_ok());
}
