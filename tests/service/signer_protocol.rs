//! obs-signd's protocol as its client speaks it: pings, certificates, digests in both forms, and the probe.

use std::fs;
use std::io::{Read, Write};

use super::certificate::{empty_directory, export};
use super::host::{Host, TRANSPORTS, Transport};
use super::signer_client::{
    HASHES, Packet, argument, argument_4, new, old, probe, strings, verify, wrapped_4,
};
use super::signer_host::{
    ABSENT, ID, SignerHost, ask, ask_new, assert_right, fingerprint, host_with, time,
};
use super::years::sq_verifies;

/// Sends a request and returns the whole answer, byte for byte.
fn raw(signd: &Host, request: &[u8]) -> Vec<u8> {
    let mut connection = signd.connect().unwrap();
    connection.write_all(request).unwrap();
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_transport_is_answered_byte_for_byte() {
    let keys = host_with(&[ID]);
    for transport in TRANSPORTS {
        let mut signd = Host::signd(&keys, transport, &[]);
        signd.launch();
        for ping in [vec![0; 4], new(&["ping"]), new(&["ping", ID])] {
            assert_eq!(raw(&signd, &ping), [0; 6], "{transport:?}: {ping:?}");
        }
        let digest = format!("SHA256:{}", argument(8, b"data", 0, time()));
        // The answer is status 0, the length of the packet, no error, and then the packet.
        let answer = raw(&signd, &old(ID, &digest));
        let packet = &answer[6..];
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        assert_eq!(answer[..6], [0, 0, length[0], length[1], 0, 0]);
        Packet::parse(packet);
        let unknown = raw(&signd, &old(ABSENT, &digest));
        let line = format!("unknown key: {ABSENT}\n");
        let length = u8::try_from(line.len()).unwrap();
        assert_eq!(unknown, [&[0, 1, 0, 0, 0, length][..], line.as_bytes()].concat());
        assert!(signd.stop().success(), "{}", signd.log());
    }
}

#[test]
fn both_forms_answer_the_certificate_that_the_service_answers() {
    let host = SignerHost::with_key();
    let path = format!("/keys/{}/pubkey", ID.replace('#', "%23"));
    let expected = host.keys.get(&path).unwrap().body;
    assert!(expected.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    // `sign` puts its hash algorithm in front of this argument, too.
    for argument in ["PUBKEY", "SHA256:PUBKEY", "sha512:PUBKEY"] {
        assert_eq!(host.ask(&old(ID, argument)).unwrap(), expected.as_bytes(), "{argument}");
    }
    for user in [ID.to_owned(), format!("SHA256:{ID}"), format!("sha1:{ID}")] {
        let answered = ask_new(&host, &["pubkey", &user]).unwrap();
        assert_eq!(answered, [expected.as_bytes()], "{user}");
    }
    let refused = ask_new(&host, &["pubkey", ID, "more"]).unwrap_err();
    assert_eq!(refused, "pubkey: no argument expected");
    for refused in [host.ask(&old(ABSENT, "PUBKEY")), host.ask(&new(&["pubkey", ABSENT]))] {
        assert_eq!(refused.unwrap_err(), format!("unknown key: {ABSENT}"));
    }
}

#[test]
fn digests_of_every_algorithm_are_signed_in_both_forms() {
    let host = SignerHost::with_key();
    let certificate = host.pubkey(ID).unwrap();
    let time = time();
    for (number, name) in HASHES {
        let names = [name.to_owned(), name.to_lowercase(), format!("Sha{}", &name[3..])];
        for (name, class) in names.iter().zip([0, 1, 0]) {
            // Without a line end, a text (class 1) is hashed like binary data (class 0).
            let digest = argument(number, b"a line without an end", class, time);
            let by_old = host.ask(&old(ID, format!("{name}:{digest}"))).unwrap();
            let upper = digest.to_uppercase();
            let by_new = ask_new(&host, &["sign", &format!("{name}:{ID}"), &upper]).unwrap();
            // An RSA signature of the same digest is the same each time.
            assert_eq!(by_new, std::slice::from_ref(&by_old), "{name}");
            let packet = Packet::parse(&by_old);
            assert_eq!((packet.class, packet.time, packet.hash), (class, time, number));
            verify(&certificate, b"a line without an end", &by_old).unwrap();
        }
    }
}

#[test]
fn several_digests_are_signed_in_their_order() {
    let host = SignerHost::with_key();
    let certificate = host.pubkey(ID).unwrap();
    let user = format!("SHA256:{ID}");
    let data: Vec<_> = (0..64_u8).map(|number| vec![number; 100]).collect();
    let digests: Vec<_> = data.iter().map(|data| argument(8, data, 0, time())).collect();
    let sign = |digests: &[String]| {
        let arguments = ["sign", &user].into_iter().chain(digests.iter().map(|digest| &**digest));
        ask_new(&host, &arguments.collect::<Vec<_>>())
    };
    let signed = sign(&digests[..3]).unwrap();
    assert_eq!(signed.len(), 3);
    for (data, packet) in data.iter().zip(&signed) {
        assert_right(&host.keys, &certificate, ID, data, packet);
    }
    let many = sign(&digests).unwrap();
    assert_eq!((many.len(), &many[..3]), (64, &signed[..]));
    let too_many = [&digests[..], &digests[..1]].concat();
    assert_eq!(sign(&too_many).unwrap_err(), "a request has 64 digests at most, not 65");
    assert_eq!(sign(&[]).unwrap_err(), "sign: at least one argument required");
    // If one digest is wrong, none is signed.
    let refused = sign(&[digests[0].clone(), "0123@0000000000".into()]).unwrap_err();
    assert!(refused.contains("bad hash 0123@0000000000"), "{refused}");
}

#[test]
fn the_probe_is_answered_in_the_form_of_version_4_and_is_no_signature() {
    let host = SignerHost::with_key();
    let certificate = host.pubkey(ID).unwrap();
    let directory = empty_directory();
    let file = export(&host.keys, ID, &directory, "--armor");
    for (number, name) in HASHES {
        let answered = host.ask(&old(ID, format!("{name}:{}", probe(number)))).unwrap();
        let probed = Packet::parse(&answered);
        assert_eq!((probed.version, probed.class, probed.time), (4, 0, 0));
        assert_eq!((probed.algorithm, probed.hash, probed.left), (1, number, [4, 4]));
        assert_eq!(probed.issuer, fingerprint(&host.keys, ID));
        assert_eq!(probed.numbers.len(), 2 + 256, "as long as a signature");
        // Do what `sign -4` does with this answer and the next one.
        let digest = argument_4(&probed, b"package", time());
        let signed = host.ask(&old(ID, format!("{name}:{digest}"))).unwrap();
        let whole = wrapped_4(&probed, &Packet::parse(&signed));
        verify(&certificate, b"package", &whole).unwrap();
        verify(&certificate, b"packages", &whole).unwrap_err();
        let [data, signature] = ["data", "signature"].map(|name| directory.path().join(name));
        fs::write(&data, "package").unwrap();
        fs::write(&signature, whole).unwrap();
        assert!(sq_verifies(&file, &signature, &data), "{name}");
    }
    let counted: Vec<_> =
        host.log_of(" sign ok ").iter().map(|line| line.contains(&"04".repeat(20))).collect();
    assert_eq!(counted, [true, false, true, false, true, false]);
}

#[test]
fn a_probe_among_digests_has_its_own_answer() {
    let host = SignerHost::with_key();
    let certificate = host.pubkey(ID).unwrap();
    let (first, last) = (argument(8, b"first", 0, time()), argument(8, b"last", 0, time()));
    let user = format!("SHA256:{ID}");
    let answered = ask_new(&host, &["sign", &user, &first, &probe(8), &last]).unwrap();
    assert_eq!(answered.len(), 3);
    assert_right(&host.keys, &certificate, ID, b"first", &answered[0]);
    assert_eq!(Packet::parse(&answered[1]).version, 4);
    assert_right(&host.keys, &certificate, ID, b"last", &answered[2]);
    // A digest that only looks like the probe is signed.
    let short = format!("{}@0000000000", "04".repeat(31) + "05");
    let packet = ask_new(&host, &["sign", &user, &short]).unwrap();
    assert_eq!(Packet::parse(&packet[0]).version, 3);
}

#[test]
fn commands_of_obs_signd_itself_are_answered_with_a_sentence() {
    let host = SignerHost::with_key();
    for name in ["keygen", "certgen", "privsign", "privtotp", "privileged"] {
        let refused = ask_new(&host, &[name, ID, "rsa@2048", "800", "x", "y"]).unwrap_err();
        assert!(refused.starts_with(name) && refused.contains("obs-signd"), "{refused}");
        assert!(!refused.contains("unknown key"), "{refused}");
    }
    for name in ["", "Sign", "sign ", "shutdown", &"x".repeat(1000)] {
        let refused = ask_new(&host, &[name, ID]).unwrap_err();
        assert!(refused.starts_with("unknown command: ") && refused.len() < 200, "{refused}");
    }
    host.assert_signs(ID);
}

#[test]
fn sha1_is_signed_where_a_setting_says_so() {
    let host = SignerHost::with_key();
    let allows = [("COPR_KEYGEN_SIGND_SHA1", "true")];
    let mut allowing = Host::signd(&host.keys, Transport::ListenUnix, &allows);
    allowing.launch();
    let digest = argument(2, b"data", 0, time());
    for request in [
        old(ID, &digest), // the default, as in obs-signd
        old(ID, format!("SHA1:{digest}")),
        new(&["sign", ID, &digest]),
        new(&["sign", &format!("sha1:{ID}"), &digest]),
    ] {
        let refused = host.ask(&request).unwrap_err();
        assert!(refused.contains(ID) && refused.contains("SHA1 is not signed"), "{refused}");
        let output = ask(&allowing, &request).unwrap();
        let packet = if output[0] == 0 { strings(&output).remove(0) } else { output };
        let parsed = Packet::parse(&packet);
        assert_eq!((parsed.version, parsed.hash), (3, 2));
        // Today's gpgv refuses SHA1, so the signature must only not be a bad one.
        let certificate = host.pubkey(ID).unwrap();
        let refused = verify(&certificate, b"data", &packet).unwrap_or_else(|words| words);
        assert!(!refused.contains("BADSIG"), "{refused}");
    }
    let refused = host.ask(&old(ID, "SHA1:PUBKEY"));
    assert!(refused.is_ok(), "the certificate is no signature");
    // If a digest does not have the size of its algorithm, that is said first.
    let refused = host.ask(&old(ID, argument(8, b"data", 0, time()))).unwrap_err();
    assert!(refused.contains("a SHA1 digest has 20 bytes, not 32"), "{refused}");
}
