//! A process that does not end when it is killed, like one that waits for a dead disk.

use std::path::Path;
use std::thread;

use serde_json::json;

use super::faults::{host_with_gpg, stand_in};
use super::host::eventually;
use super::shim::Stuck;

const ID: &str = "user#project@copr.example.org";

/// Stand-ins for gpg. The stuck process is the leader of the process group, or a child that the leader leaves
/// behind.
const PLACES: [&str; 2] = [r#"exec "$here/stuck""#, r#""$here/stuck" & sleep 600"#];

#[test]
fn a_gpg_that_cannot_be_killed_costs_its_own_request_and_is_waited_for_aside() {
    let mut host = host_with_gpg("", &[("COPR_KEYGEN_GPG_TIMEOUT", "6s")]);
    let stuck = Stuck::new(&host);
    for script in PLACES {
        stand_in(&host, script);
        let (pid, mut holder) = thread::scope(|scope| {
            let request = scope.spawn(|| host.gen_key(ID, json!({})));
            let held = stuck.hold();
            // The answer comes while the process is held. If it did not come in time, the client would lose
            // patience and this would fail.
            let refused = request.join().unwrap().unwrap();
            assert_eq!(refused.status, 500, "{}", host.log());
            held
        });
        assert!(host.log().contains("gpg was killed after "), "{}", host.log());
        assert!(host.log().contains("has not ended; it is waited for aside"), "{}", host.log());
        let process = format!("/proc/{pid}");
        assert!(Path::new(&process).exists(), "it was not stuck");
        assert_eq!(host.entries("keys"), [""; 0]);
        stand_in(&host, r#"exec gpg "$@""#);
        let other = format!("user#{pid}@copr.example.org");
        assert_eq!(host.gen_key_patiently(&other, &json!({})).status, 201, "{}", host.log());
        drop(holder.stdin.take());
        holder.wait().unwrap();
        eventually("no zombie to be left", || (!Path::new(&process).exists()).then_some(()));
        std::fs::remove_file(stuck.path().with_extension("pid")).unwrap();
        std::fs::remove_dir_all(host.home(&other)).unwrap();
    }
    assert!(host.stop().success());
    assert_eq!(host.entries("staging"), [""; 0]);
}
