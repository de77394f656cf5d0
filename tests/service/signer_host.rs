//! A host with keys, and `signd` beside its service.

use std::io::{Read, Write};
use std::ops::Deref;

use serde_json::{Value, json};

use super::host::{Connection, Host, Transport, now};
use super::signer_client::{Answer, HASHES, Packet, argument, new, old, parse, strings, verify};

pub const ID: &str = "user#project@copr.example.org";
pub const OTHER: &str = "other#project@copr.example.org";
pub const ABSENT: &str = "absent#project@copr.example.org";

/// A host with keys, and `signd` that signs with them.
pub struct SignerHost {
    /// The host that has the state and makes keys.
    pub keys: Host,
    /// The host that runs `signd`.
    pub signd: Host,
}

impl SignerHost {
    /// A host with a key of [`ID`] and with default settings.
    pub fn with_key() -> Self {
        Self::with_keys(&[ID], Transport::ListenUnix, &[])
    }

    pub fn with_keys(ids: &[&str], transport: Transport, environment: &[(&str, &str)]) -> Self {
        Self::around(host_with(ids), transport, environment)
    }

    /// Starts `signd` on the state of `keys`.
    pub fn around(keys: Host, transport: Transport, environment: &[(&str, &str)]) -> Self {
        let mut signd = Host::signd(&keys, transport, environment);
        signd.launch();
        Self { keys, signd }
    }

    pub fn ask(&self, request: &[u8]) -> Answer {
        ask(&self.signd, request)
    }

    /// Asks for a signature over `data`, in the old form.
    pub fn sign(&self, id: &str, data: &[u8]) -> Answer {
        sign(&self.signd, id, data)
    }

    pub fn pubkey(&self, id: &str) -> Answer {
        self.ask(&old(id, "PUBKEY"))
    }

    /// Asserts that the key of `id` signs and that gpgv finds the signature valid.
    pub fn assert_signs(&self, id: &str) {
        let packet = self.sign(id, id.as_bytes()).unwrap_or_else(|e| panic!("{id}: {e}"));
        let certificate = self.pubkey(id).unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_right(&self.keys, &certificate, id, id.as_bytes(), &packet);
    }

    /// Asserts that signing is refused with a sentence that names the key and contains `words`. Returns the
    /// sentence.
    pub fn assert_refuses(&self, id: &str, words: &str) -> String {
        let refused = self.sign(id, b"data").unwrap_err();
        assert!(refused.contains(words) && refused.contains(id), "{words:?}: {refused}");
        assert!(!refused.contains("unknown key"), "{refused}");
        refused
    }

    /// Returns the lines of the log with these words.
    pub fn log_of(&self, words: &str) -> Vec<String> {
        let log = self.signd.log();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

/// Most questions are for `signd`.
impl Deref for SignerHost {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.signd
    }
}

/// Starts a service with an RSA-2048 key for each of `ids`.
pub fn host_with(ids: &[&str]) -> Host {
    let keys = Host::start(Transport::ListenUnix);
    for id in ids {
        let made = keys.gen_key_patiently(id, &json!({}));
        assert_eq!(made.status, 201, "{}", keys.log());
    }
    keys
}

/// Sends `request` and reads the whole answer.
pub fn ask(signd: &Host, request: &[u8]) -> Answer {
    answer(&mut send(signd, request))
}

/// Sends `request` and reads nothing yet.
pub fn send(signd: &Host, request: &[u8]) -> Connection {
    let mut connection = signd.connect().unwrap();
    // signd may refuse the request and close the connection before all bytes are written.
    let _ = connection.write_all(request);
    connection
}

/// Reads an answer to the end of the connection.
pub fn answer(connection: &mut Connection) -> Answer {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Err(e) if bytes.is_empty() => panic!("no answer: {e}"),
        _ => parse(&bytes),
    }
}

pub fn sign(signd: &Host, id: &str, data: &[u8]) -> Answer {
    ask(signd, &old(id, format!("SHA256:{}", argument(8, data, 0, time()))))
}

/// Sends a request in the new form and returns the strings in the answer.
pub fn ask_new(signd: &Host, arguments: &[&str]) -> Result<Vec<Vec<u8>>, String> {
    ask(signd, &new(arguments)).map(|output| strings(&output))
}

/// Asserts that the packet is a signature of SHA-256 over `data` by the key of `id`.
pub fn assert_right(keys: &Host, certificate: &[u8], id: &str, data: &[u8], packet: &[u8]) {
    let parsed = Packet::parse(packet);
    assert_eq!((parsed.version, parsed.class), (3, 0), "{id}");
    assert!(parsed.time.abs_diff(time()) < 3600, "{id}: {}", parsed.time);
    assert_eq!(parsed.hash, HASHES[0].0, "{id}");
    assert!(fingerprint(keys, id).ends_with(&parsed.issuer), "{id}");
    verify(certificate, data, packet).unwrap_or_else(|e| panic!("{id}: {e}"));
}

/// Returns the time of now as signatures have it, Unix time in 32 bits.
pub fn time() -> u32 {
    u32::try_from(now()).unwrap()
}

pub fn record(keys: &Host, id: &str) -> Value {
    let record = std::fs::read(keys.home(id).join("key.json")).unwrap();
    serde_json::from_slice(&record).unwrap()
}

pub fn fingerprint(keys: &Host, id: &str) -> String {
    record(keys, id)["fingerprint"].as_str().unwrap().to_owned()
}

/// Returns a request that takes a while, because it has 64 digests.
pub fn long_request() -> Vec<u8> {
    let user = format!("SHA256:{ID}");
    let digests: Vec<_> = (0..64_u8).map(|n| argument(8, &[n], 0, time())).collect();
    let strings: Vec<_> = ["sign", &user].into_iter().chain(digests.iter().map(|d| &**d)).collect();
    new(&strings)
}
