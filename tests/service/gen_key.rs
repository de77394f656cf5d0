//! `POST /gen_key`, to the contract.

use serde_json::json;

use super::host::{Host, TRANSPORTS};

#[test]
fn a_key_is_made_once_over_every_transport() {
    for transport in TRANSPORTS {
        let host = Host::start(transport);
        let id = "user#project@copr.example.org";
        let made = host.gen_key(id, json!({"expire": "1y"})).unwrap();
        assert_eq!((made.status, made.body.as_str()), (201, ""), "{transport:?}: {}", host.log());
        let record = std::fs::read(host.home(id).join("key.json")).unwrap();
        let again = host.gen_key(id, json!({"expire": "2y"})).unwrap();
        assert_eq!((again.status, again.body.as_str()), (200, ""));
        assert_eq!(std::fs::read(host.home(id).join("key.json")).unwrap(), record);
        assert_eq!(host.entries("staging"), [""; 0]);
    }
}
