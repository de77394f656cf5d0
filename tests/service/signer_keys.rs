//! Keys of every kind that a host can have: all of them sign, and gpgv finds the signatures valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::certificate::{empty_directory, succeed, text};
use super::host::{Host, Transport};
use super::old_host::{OldHost, new_host};
use super::signer_client::{HASHES, Packet, argument, argument_4, old, probe, verify, wrapped_4};
use super::signer_host::{ID, SignerHost, fingerprint, host_with, time};

/// Returns the parameters with which gpg makes a key of this kind.
fn of_kind(id: &str, kind: &str) -> String {
    format!("{kind}\nName-Real: user_project\nName-Email: {id}\nExpire-Date: 5y\n%commit\n")
}

/// Signs in every way with the key of `id`, and has gpgv verify every signature.
fn assert_signs_in_every_way(host: &SignerHost, id: &str, algorithm: u8) {
    let certificate = host.pubkey(id).unwrap();
    // Verifiers refuse an ECDSA signature over a digest that is shorter than the key.
    let shortest = match id.split_once('#').unwrap().0 {
        "p384" => "SHA384",
        "p521" => "SHA512",
        _ => "SHA256",
    };
    for (number, name) in HASHES {
        if name < shortest {
            for digest in [probe(number), argument(number, b"data", 0, time())] {
                let refused = host.ask(&old(id, format!("{name}:{digest}"))).unwrap_err();
                assert!(refused.contains(id) && refused.contains(name), "{refused}");
                assert!(refused.contains(&shortest.to_lowercase()), "{refused}");
            }
            continue;
        }
        let ask = |digest: String| host.ask(&old(id, format!("{name}:{digest}")));
        let probed = Packet::parse(&ask(probe(number)).unwrap_or_else(|e| panic!("{id}: {e}")));
        assert_eq!((probed.version, probed.algorithm), (4, algorithm), "{id}");
        assert_eq!(probed.issuer, fingerprint(&host.keys, id));
        let signed =
            ask(argument_4(&probed, b"package", time())).unwrap_or_else(|e| panic!("{id}: {e}"));
        let whole = wrapped_4(&probed, &Packet::parse(&signed));
        verify(&certificate, b"package", &whole).unwrap_or_else(|e| panic!("{id}: {name}: {e}"));
        let of_3 =
            ask(argument(number, b"data", 0, time())).unwrap_or_else(|e| panic!("{id}: {e}"));
        let parsed = Packet::parse(&of_3);
        assert_eq!((parsed.algorithm, parsed.version), (algorithm, 3), "{id}");
        verify(&certificate, b"data", &of_3).unwrap_or_else(|e| panic!("{id}: {name}: {e}"));
        verify(&certificate, b"other data", &of_3).unwrap_err();
    }
}

/// Returns the file of the only secret key in a home.
fn secret_key(home: &Path) -> PathBuf {
    let mut files = fs::read_dir(home.join("private-keys-v1.d")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

#[test]
fn keys_of_rsa_that_the_service_made() {
    let keys = Host::start(Transport::ListenUnix);
    for length in [2048, 3072, 4096] {
        let id = format!("rsa{length}#project@copr.example.org");
        let made = keys.gen_key_patiently(&id, &json!({"key_length": length}));
        assert_eq!(made.status, 201, "{}", keys.log());
    }
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    for length in [2048, 3072, 4096] {
        let id = format!("rsa{length}#project@copr.example.org");
        assert_signs_in_every_way(&host, &id, 1);
        assert_eq!(host.log_of(&format!(" rsa{length} ")).len(), 9);
    }
}

#[test]
fn keys_of_every_algorithm_that_an_old_host_had() {
    let kinds = [
        ("ed25519", "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign", 22),
        ("p256", "Key-Type: ECDSA\nKey-Curve: nistp256\nKey-Usage: sign", 19),
        ("p384", "Key-Type: ECDSA\nKey-Curve: nistp384\nKey-Usage: sign", 19),
        ("p521", "Key-Type: ECDSA\nKey-Curve: nistp521\nKey-Usage: sign", 19),
        ("rsa", "Key-Type: RSA\nKey-Length: 2048", 1),
    ];
    let id = |kind: &str| format!("{kind}#project@copr.example.org");
    let old_host = OldHost::new(&[]);
    old_host.generate("%no-protection\n", kinds.map(|(kind, how, _)| of_kind(&id(kind), how)));
    for protect in ["yes", "no"] {
        let keys = new_host();
        let imported = old_host.import(&keys, &["--protect", protect]);
        assert!(imported.status.success(), "{}", text(&imported));
        for (kind, ..) in kinds {
            let key = fs::read(secret_key(&keys.home(&id(kind)))).unwrap();
            let is_protected = String::from_utf8_lossy(&key).contains("(protected-private-key");
            assert_eq!(is_protected, protect == "yes", "{kind}");
        }
        // None of these keys needs an agent.
        let host = SignerHost::around(
            keys,
            Transport::ListenUnix,
            &[("COPR_KEYGEN_GPG_AGENT", "/bin/false"), ("COPR_KEYGEN_LOG_LEVEL", "debug")],
        );
        for (kind, _, algorithm) in kinds {
            assert_signs_in_every_way(&host, &id(kind), algorithm);
        }
    }
}

#[test]
fn keys_of_dsa_sign_through_gpg_agent() {
    let id = |length: u32| format!("dsa{length}#project@copr.example.org");
    let old_host = OldHost::new(&[]);
    let kind = |length| format!("Key-Type: DSA\nKey-Length: {length}\nKey-Usage: sign");
    let lengths = [1024, 2048, 3072];
    old_host.generate("%no-protection\n", lengths.map(|n| of_kind(&id(n), &kind(n))));
    let keys = new_host();
    let imported = old_host.import(&keys, &[]);
    assert!(imported.status.success(), "{}", text(&imported));
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    for length in lengths {
        assert_signs_in_every_way(&host, &id(length), 17);
    }
    // Several agents at once do not get in each other's way.
    std::thread::scope(|scope| {
        let sign = || host.assert_signs(&id(2048));
        (0..6).for_each(|_| drop(scope.spawn(sign)));
    });
    assert_eq!(host.keys.entries("staging"), [""; 0], "nothing is left of the agents");
}

#[test]
fn key_files_of_the_old_format() {
    let version = Command::new("gpg").arg("--version").output().unwrap();
    // GnuPG 2.4 makes no files of the old format.
    let makes_old = text(&version).starts_with("gpg (GnuPG) 2.2");
    for (options, contains, is_old) in [
        ("s2k-count 65536\ndisable-extended-key-format", "25:openpgp-s2k3-sha1-aes-cbc", true),
        // Another S2K count, as chosen by agents that measure how fast the machine is.
        ("s2k-count 1048576", "openpgp-s2k3-ocb-aes", false),
    ] {
        if is_old && !makes_old {
            continue;
        }
        let (rsa, ecdsa) = ("rsa#project@copr.example.org", "p256#project@copr.example.org");
        let old_host = OldHost::new(&[]);
        fs::write(old_host.gnupg().join("gpg-agent.conf"), format!("{options}\n")).unwrap();
        let kinds = [
            (rsa, "Key-Type: RSA\nKey-Length: 2048\nPassphrase: phrase"),
            (ecdsa, "Key-Type: ECDSA\nKey-Curve: nistp256\nKey-Usage: sign\nPassphrase: phrase"),
        ];
        old_host.generate("", kinds.map(|(id, how)| of_kind(id, how)));
        for (id, _) in kinds {
            fs::write(old_host.phrases().join(id), "phrase\n").unwrap();
        }
        let keys = new_host();
        let imported = old_host.import(&keys, &["--protect", "no"]);
        assert!(imported.status.success(), "{}", text(&imported));
        for (id, _) in kinds {
            let file = fs::read(secret_key(&keys.home(id))).unwrap();
            let shown = String::from_utf8_lossy(&file);
            assert!(shown.contains(contains), "{shown}");
            assert_eq!(file.starts_with(b"(21:protected-private-key"), is_old, "{shown}");
        }
        let alone = [("COPR_KEYGEN_GPG_AGENT", "/bin/false")];
        let host = SignerHost::around(keys, Transport::ListenUnix, &alone);
        kinds.iter().for_each(|(id, _)| host.assert_signs(id));
        // If one byte of the encrypted part is changed, the key does not open.
        let file = secret_key(&host.keys.home(rsa));
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.len() - 300;
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        fs::write(&file, bytes).unwrap();
        host.assert_refuses(rsa, "the secret key");
        host.assert_signs(ecdsa);
    }
}

/// `gpg --import` leaves a protected key in the form of the imported file until the key is used. Somebody who
/// repairs a home by hand may leave such a key in it.
#[test]
fn keys_as_they_were_imported_sign_through_gpg_agent() {
    let keys = host_with(&[ID]);
    let home = empty_directory();
    let path = home.path().join("h");
    succeed(Command::new("cp").arg("-a").arg(keys.home(ID)).arg(&path));
    let exported = home.path().join("exported");
    let passphrase = path.join("passphrase");
    let gpg = |home: &Path| {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--pinentry-mode=loopback", "--homedir"]).arg(home);
        gpg.arg("--yes").arg("--passphrase-file").arg(&passphrase);
        gpg
    };
    let end_agent = |home: &Path| {
        succeed(Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]));
    };
    // gpg spoils one key in some ten thousand: see `Error::is_spoiled_key`.
    let native = loop {
        let fresh = empty_directory();
        succeed(gpg(&path).args(["--export-secret-keys", "-o"]).arg(&exported));
        succeed(gpg(fresh.path()).arg("--import").arg(&exported));
        end_agent(fresh.path());
        let native = fs::read(secret_key(fresh.path())).unwrap();
        let signed = gpg(fresh.path()).args(["-o", "-", "--sign", "/dev/null"]).output();
        end_agent(fresh.path());
        let signed = signed.unwrap();
        if signed.status.success() {
            break native;
        }
        let words = text(&signed);
        assert!(words.contains("Bad passphrase") || words.contains("parentheses"), "{words}");
    };
    end_agent(&path);
    assert!(String::from_utf8_lossy(&native).contains("openpgp-native"));
    fs::write(secret_key(&keys.home(ID)), &native).unwrap();
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    for _ in 0..3 {
        host.assert_signs(ID);
    }
    assert_eq!(fs::read(secret_key(&host.keys.home(ID))).unwrap(), native, "it stays as it is");
    assert_eq!(host.keys.entries("staging"), [""; 0]);
    // With a wrong passphrase the agent makes no signature.
    fs::write(host.keys.home(ID).join("passphrase"), "wrong\n").unwrap();
    host.assert_refuses(ID, "");
    assert_eq!(host.keys.entries("staging"), [""; 0]);
}

#[test]
fn odd_passphrases_of_old_hosts_open_their_keys() {
    for phrase in ["100% $HOME ${x} \"quoted\" \\n %41 %%", "süß # /bye", "x"] {
        // signd signs with the first key itself, and with the second one through gpg-agent.
        let ids = ["ed25519", "dsa"].map(|name| format!("{name}#project@copr.example.org"));
        let kinds = [
            "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign",
            "Key-Type: DSA\nKey-Length: 2048\nKey-Usage: sign",
        ];
        let old_host = OldHost::new(&[]);
        let with_phrase =
            |(id, kind): (&String, &str)| of_kind(id, &format!("{kind}\nPassphrase: {phrase}"));
        old_host.generate("", ids.iter().zip(kinds).map(with_phrase));
        for id in &ids {
            fs::write(old_host.phrases().join(id), format!("{phrase}\n")).unwrap();
        }
        let keys = new_host();
        let imported = old_host.import(&keys, &["--protect", "no"]);
        assert!(imported.status.success(), "{phrase:?}: {}", text(&imported));
        let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
        ids.iter().for_each(|id| host.assert_signs(id));
    }
}
