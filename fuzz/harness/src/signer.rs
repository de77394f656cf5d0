//! What the signer reads: requests, secret keys as gpg-agent keeps them, and certificates.

use signer::Refusal;
use signer::algorithm::Hash;
use signer::certificate::Certificate;
use signer::key_file::{self, KeyNumbers, Unopened};
use signer::public_key::{PublicKey, without_zeros};
use signer::request::{self, Command, Digest, Form, HEAD};
use signer::secret_key::{SecretKey, Unusable};
use signer::sexp::Sexp;
use signer::signature;

use super::is_one_line;

/// The passphrase of the secret keys in the corpus. These keys are worthless.
const PASSPHRASE: &[u8] = b"passphrase";
/// The largest number, in bytes, to compute with. With larger ones a single signature takes seconds.
const NUMBER_MAX: usize = 512;

/// Parses a request of obs-signd's protocol, writes it out in the new form and parses that again.
pub fn sign_request(data: &[u8]) {
    let (form, command) = match request::parse(data) {
        Ok(parsed) => parsed,
        Err(why) => {
            let line = Refusal::Malformed(why).to_string();
            is_one_line(&line);
            let answer = request::failure(&line);
            assert!(answer.starts_with(&[0, 1, 0, 0]) && answer.ends_with(b"\n"));
            assert_eq!(usize::from(u16::from_be_bytes([answer[4], answer[5]])), answer.len() - 6);
            return;
        }
    };
    let head = data.first_chunk::<HEAD>().map(|head| request::length(*head));
    assert_eq!(head, Some(data.len() - HEAD));
    // Written out in the new form, the request has the same meaning.
    let strings: Vec<String> = match &command {
        Command::Ping => vec!["ping".into()],
        Command::Program => ["ping", "", "program"].map(String::from).into(),
        Command::PublicKey { user } => vec!["pubkey".into(), format!("SHA256:{}", checked(user))],
        Command::Sign { user, hash, digests } => {
            assert!(!digests.is_empty() && digests.len() <= 64);
            assert!(form == Form::New || digests.len() == 1);
            let words = digests.iter().map(|digest| {
                assert_eq!(digest.bytes.len(), hash.size());
                assert!(digest.class_and_time[0] < 2);
                format!("{}@{}", hex(&digest.bytes), hex(&digest.class_and_time))
            });
            let user = format!("{}:{}", hash.name(), checked(user));
            ["sign".into(), user].into_iter().chain(words).collect()
        }
    };
    let number = |length: usize| u16::try_from(length).ok().map(u16::to_be_bytes);
    let mut body: Vec<u8> = number(strings.len()).into_iter().flatten().collect();
    let lengths = strings.iter().filter_map(|string| number(string.len())).flatten();
    body.extend(lengths);
    strings.iter().for_each(|string| body.extend(string.as_bytes()));
    let Some(length) = number(body.len()) else { return };
    let written = [&length[..], &[0, 0], &body].concat();
    assert_eq!(request::parse(&written), Ok((Form::New, command)));
}

/// Asserts that the user to look up is neither a path nor a hidden file, and is printable.
fn checked(user: &str) -> &str {
    assert!(!user.is_empty() && !user.contains('/') && !user.starts_with('.'));
    assert!(!user.bytes().any(|byte| byte < 32 || byte == 127));
    user
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens the file of a secret key and, if that succeeds, signs with the key.
pub fn secret_key(data: &[u8]) {
    if let Some(sexp) = Sexp::parse(data) {
        let mut written = Vec::new();
        sexp.write_canonical(&mut written);
        assert_eq!(Sexp::parse(&written), Some(sexp));
    }
    // Skip iteration counts of seven digits and more. Stretching the passphrase then takes seconds, which is
    // expected.
    if data.windows(7).any(|digits| digits.iter().all(u8::is_ascii_digit)) {
        return;
    }
    match key_file::open(data, PASSPHRASE) {
        Ok(numbers) => signs_or_says_why(&numbers),
        Err(Unopened::OnlyByAgent(why) | Unopened::Malformed(why)) => is_one_line(why),
        Err(Unopened::WrongPassphrase) => {}
    }
}

/// Signs with a key of these numbers. The numbers may contradict each other, so the signature may be wrong.
fn signs_or_says_why(numbers: &KeyNumbers) {
    let number = |name: &str| numbers.get(name).filter(|number| number.len() <= NUMBER_MAX);
    let [Some(n), Some(e)] = ["n", "e"].map(number) else { return };
    if !["d", "p", "q", "u"].iter().all(|name| number(name).is_some()) {
        return;
    }
    let [n, e] = [n, e].map(|number| without_zeros(number).to_vec());
    let public = PublicKey::Rsa { number: 1, n, e };
    match SecretKey::new(numbers, &public) {
        Ok(key) => {
            let digest = [0xc5; 32];
            if let Ok(signature) = key.sign(Hash::Sha256, &digest) {
                // The signer verifies every signature it makes and throws a wrong one away, so either result
                // is right here.
                public.verifies(Hash::Sha256, &digest, &signature);
            }
        }
        Err(Unusable::Malformed(why)) => is_one_line(&Refusal::failed("user", why).to_string()),
        Err(Unusable::OnlyByAgent | Unusable::OfAnother) => {}
    }
}

/// Parses the packets of a certificate, and builds signatures with it.
pub fn certificate(data: &[u8]) {
    // `read` expects a keybox instead. Its error message has to be one line as well.
    if let Err(why) = Certificate::read(data) {
        is_one_line(&why);
    }
    let certificate = match Certificate::parse(data) {
        Ok(certificate) => certificate,
        Err(why) => return is_one_line(&why),
    };
    let print = certificate.fingerprint().map(|print| print.as_str().to_owned());
    assert_eq!(print.as_deref(), Some(hex(&certificate.fingerprint).to_uppercase().as_str()));
    assert!(certificate.fingerprint.ends_with(certificate.key_id()));
    assert!(certificate.expires.is_none_or(|at| at > certificate.created));
    is_one_line(&certificate.key.name());
    for hash in Hash::ALL {
        let digest =
            |byte| Digest { bytes: vec![byte; hash.size()], class_and_time: [0, 0x60, 0, 0, 0] };
        let probe = signature::probe_answer(&certificate, hash, &digest(4));
        let numbers: Vec<_> = certificate
            .key
            .signature_bits()
            .iter()
            .map(|bits| vec![0xff; bits.div_ceil(8)])
            .collect();
        let signed = signature::version_3(&certificate, hash, &digest(1), &numbers);
        for packet in [probe, signed].into_iter().flatten() {
            let packets = gpg::packets::packets(&packet);
            let packets = packets.unwrap_or_else(|e| panic!("{e}: {packet:?}"));
            assert!(packets.len() == 1 && packets[0].kind == 2, "{packet:?}");
        }
        if numbers.iter().all(|number| number.len() <= NUMBER_MAX) {
            assert!(!certificate.key.verifies(hash, &digest(1).bytes, &numbers));
        }
    }
}
