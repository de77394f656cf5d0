//! The requests of obs-signd's protocol, in its old and new form, and the answers to them. Numbers have two
//! bytes and are big-endian.
//!
//! A request begins with two lengths. Both are zero in a ping. In the new form, only the second one is zero. A
//! count, that many lengths and that many strings follow: the command, the user and the arguments. In the old
//! form, a user and an argument follow; the argument is `PUBKEY` or the digest to sign.
//!
//! As in signd 2.8, the name of a hash algorithm may precede the user in the new form, and the argument in the
//! old form.

use crate::algorithm::Hash;
use crate::bytes::Bytes;
use crate::refusal::Refusal;

/// The number of bytes of the two lengths that a request begins with.
pub const HEAD: usize = 4;
/// The hash algorithm of a request that names none.
const DEFAULT_HASH: &str = "SHA1";
/// The commands of signd that manage its own keys.
const OF_SIGND: [&str; 5] = ["keygen", "certgen", "privsign", "privtotp", "privileged"];
/// The maximum number of digests in one request. A package takes two.
const DIGESTS_MAX: usize = 64;

/// A ping that asks which program answers. obs-signd answers it like any other ping.
pub const WHO_ANSWERS: &[u8] = b"\0\x13\0\0\0\x03\0\x04\0\0\0\x07pingprogram";
/// The answer of this program to [`WHO_ANSWERS`].
const PROGRAM: &[u8] = b"copr-keygen";

/// Returns how many bytes follow a head.
pub fn length(head: [u8; HEAD]) -> usize {
    let [a, b, c, d] = head;
    usize::from(u16::from_be_bytes([a, b])) + usize::from(u16::from_be_bytes([c, d]))
}

/// The form of a request. The answer has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The answer is one string, without a length of its own.
    Old,
    /// The answer is a count, the lengths of the strings, and the strings.
    New,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Asks whether the server is alive.
    Ping,
    /// Asks which program answers; see [`WHO_ANSWERS`].
    Program,
    /// Asks for the certificate of a user.
    PublicKey {
        /// The user.
        user: String,
    },
    /// Asks for signatures over digests, of which there is at least one.
    Sign {
        /// The user whose key signs.
        user: String,
        /// The algorithm of all the digests.
        hash: Hash,
        /// The digests to sign.
        digests: Vec<Digest>,
    },
}

/// A digest to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The bytes of the digest.
    pub bytes: Vec<u8>,
    /// The type of the signature (0 for binary data, 1 for text) and its time, encoded as in a signature
    /// packet.
    pub class_and_time: [u8; 5],
}

impl Digest {
    /// Whether this is the probe of the client `sign`. Before it makes version 4 signatures, the client sends a
    /// digest whose bytes are all 4, to learn the algorithm and the fingerprint of the key.
    pub fn is_probe(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 4)
    }

    /// Parses `HEXDIGEST@CCTTTTTTTT`: the digest, the type of the signature and its time.
    fn parse(text: &str, hash: Hash) -> Result<Self, String> {
        let shown = gpg::text::printable_start(text, 200);
        let wrong = |why: String| Err(format!("bad hash {shown}: {why}"));
        let Some((digits, end)) = text.split_once('@') else {
            return wrong("there is no @ between digest and time".into());
        };
        let Some(bytes) = gpg::hex::decode(digits.as_bytes()) else {
            return wrong("the digest is not hexadecimal".into());
        };
        if bytes.len() != hash.size() {
            let (name, size) = (hash.name(), hash.size());
            return wrong(format!("a {name} digest has {size} bytes, not {}", bytes.len()));
        }
        let end = gpg::hex::decode(end.as_bytes());
        match end.as_deref().map(|end| <[u8; 5]>::try_from(&end[..])) {
            Some(Ok(class_and_time)) if class_and_time[0] < 2 => {
                Ok(Self { bytes: bytes.to_vec(), class_and_time })
            }
            _ => wrong(
                "class and time are not ten hexadecimal digits that begin with 00 or 01".into(),
            ),
        }
    }
}

/// Parses a whole request. `Err` is a sentence for the client.
pub fn parse(request: &[u8]) -> Result<(Form, Command), String> {
    const CUT: &str = "packet too small";
    let mut rest = Bytes(request);
    let (first, second) = (rest.u16().ok_or(CUT)?, rest.u16().ok_or(CUT)?);
    if rest.0.len() != usize::from(first) + usize::from(second) {
        return Err("packet size mismatch".into());
    }
    if second > 0 {
        let user = text(rest.take(first.into()).ok_or(CUT)?)?;
        let argument = text(rest.0)?;
        let (hash, argument) = argument.split_once(':').unwrap_or((DEFAULT_HASH, argument));
        let command = match argument {
            "PUBKEY" => public_key(user)?,
            argument => sign(user, hash, &[argument])?,
        };
        return Ok((Form::Old, command));
    }
    if first == 0 {
        return Ok((Form::Old, Command::Ping));
    }
    let count = usize::from(rest.u16().ok_or(CUT)?);
    let mut lengths = Bytes(rest.take(2 * count).ok_or(CUT)?);
    let mut strings = Vec::new();
    while let Some(length) = lengths.u16() {
        strings.push(text(rest.take(length.into()).ok_or(CUT)?)?);
    }
    if !rest.is_empty() {
        return Err("packet size mismatch".into());
    }
    let Some((command, arguments)) = strings.split_first() else {
        return Err("the request names no command".into());
    };
    let user = arguments.first().copied().unwrap_or_default();
    let (hash, user) = user.split_once(':').unwrap_or((DEFAULT_HASH, user));
    let command = match (*command, arguments.get(1..).unwrap_or_default()) {
        ("ping", ["program"]) => Command::Program,
        ("ping", _) => Command::Ping,
        ("pubkey", []) => public_key(user)?,
        ("pubkey", _) => return Err("pubkey: no argument expected".into()),
        ("sign", []) => return Err("sign: at least one argument required".into()),
        ("sign", digests) => sign(user, hash, digests)?,
        (name, _) if OF_SIGND.contains(&name) => {
            return Err(format!(
                "{name} is about keys of obs-signd itself, of which there are none here"
            ));
        }
        (name, _) => {
            return Err(format!("unknown command: {}", gpg::text::printable_start(name, 40)));
        }
    };
    Ok((Form::New, command))
}

/// Checks that a string can be displayed: that it is UTF-8 without control characters.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| !text.bytes().any(|byte| byte < 32 || byte == 127));
    text.ok_or_else(|| "malformed argument".into())
}

fn user_of(user: &str) -> Result<String, String> {
    match user {
        "" => Err("the request names no user".into()),
        user if user.contains('/') || user.starts_with('.') => {
            Err(format!("illegal user {}", gpg::text::printable_start(user, 200)))
        }
        user => Ok(user.into()),
    }
}

fn public_key(user: &str) -> Result<Command, String> {
    Ok(Command::PublicKey { user: user_of(user)? })
}

fn sign(user: &str, hash: &str, digests: &[&str]) -> Result<Command, String> {
    let user = user_of(user)?;
    let Some(hash) = Hash::named(hash) else {
        let name = gpg::text::printable_start(hash, 40);
        return Err(format!("hash algorithm {name} is not one of SHA256, SHA384 and SHA512"));
    };
    if digests.len() > DIGESTS_MAX {
        return Err(format!("a request has {DIGESTS_MAX} digests at most, not {}", digests.len()));
    }
    let digests: Result<_, _> = digests.iter().map(|text| Digest::parse(text, hash)).collect();
    Ok(Command::Sign { user, hash, digests: digests? })
}

/// Encodes the answer to a request that was fulfilled. Fails if lengths of two bytes cannot express its size.
/// Fails for several strings in the old form, which can answer only one.
pub fn success(form: Form, strings: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let too_long = || "the answer is longer than the protocol allows".to_owned();
    let short = |length: usize| u16::try_from(length).map_err(|_| too_long());
    let mut output = Vec::new();
    match (form, strings) {
        (_, []) => {}
        (Form::Old, [string]) => output.extend_from_slice(string),
        (Form::Old, _) => return Err("only one digest can be signed in the old protocol".into()),
        (Form::New, strings) => {
            output.extend(short(strings.len())?.to_be_bytes());
            for string in strings {
                output.extend(short(string.len())?.to_be_bytes());
            }
            strings.iter().for_each(|string| output.extend_from_slice(string));
        }
    }
    let length = short(output.len())?.to_be_bytes();
    Ok([&[0, 0][..], &length, &[0, 0], &output].concat())
}

/// Returns the strings that answer [`Command::Program`].
pub fn program() -> Vec<Vec<u8>> {
    vec![PROGRAM.to_vec()]
}

/// Whether `answer` is one that this program gives to [`WHO_ANSWERS`]: its name, or one of the refusals
/// [`Refusal::Stranger`] and [`Refusal::Busy`].
pub fn is_ours(answer: &[u8]) -> bool {
    let refusals = [Refusal::Stranger, Refusal::Busy].map(|refusal| failure(&refusal.to_string()));
    success(Form::New, &program()).is_ok_and(|named| named == answer)
        || refusals.iter().any(|refusal| refusal == answer)
}

/// Encodes the answer to a request that was refused. `sentence` is for the user of the client.
pub fn failure(sentence: &str) -> Vec<u8> {
    let line = format!("{sentence}\n");
    let line = &line.as_bytes()[line.len().saturating_sub(usize::from(u16::MAX))..];
    let length = u16::try_from(line.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0, 1, 0, 0][..], &length, line].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "user#project@copr.example.org";

    fn old(user: &[u8], argument: &[u8]) -> Vec<u8> {
        let [a, b] = [user, argument].map(|part| (part.len() as u16).to_be_bytes());
        [&a[..], &b, user, argument].concat()
    }

    fn new(strings: &[&str]) -> Vec<u8> {
        let mut body = (strings.len() as u16).to_be_bytes().to_vec();
        strings.iter().for_each(|string| body.extend((string.len() as u16).to_be_bytes()));
        strings.iter().for_each(|string| body.extend(string.as_bytes()));
        [&(body.len() as u16).to_be_bytes()[..], &[0, 0], &body].concat()
    }

    fn digest(hash: Hash) -> String {
        "ab".repeat(hash.size()) + "@0165432101"
    }

    #[test]
    fn both_forms_say_the_same() {
        let ping = (Form::Old, Command::Ping);
        assert_eq!(parse(&[0; 4]), Ok(ping));
        assert_eq!(parse(&new(&["ping"])), Ok((Form::New, Command::Ping)));
        let expected = Command::PublicKey { user: USER.into() };
        for argument in ["PUBKEY", "SHA256:PUBKEY", "anything:PUBKEY"] {
            let parsed = parse(&old(USER.as_bytes(), argument.as_bytes()));
            assert_eq!(parsed, Ok((Form::Old, expected.clone())), "{argument}");
        }
        assert_eq!(parse(&new(&["pubkey", USER])), Ok((Form::New, expected)));
        for hash in Hash::ALL {
            let bytes = vec![0xab; hash.size()];
            let wanted = Digest { bytes, class_and_time: [1, 0x65, 0x43, 0x21, 1] };
            let expected = |digests| Command::Sign { user: USER.into(), hash, digests };
            let argument = format!("{}:{}", hash.name().to_lowercase(), digest(hash));
            assert_eq!(
                parse(&old(USER.as_bytes(), argument.as_bytes())),
                Ok((Form::Old, expected(vec![wanted.clone()])))
            );
            let user = format!("{}:{USER}", hash.name());
            let two = parse(&new(&["sign", &user, &digest(hash), &digest(hash)]));
            assert_eq!(two, Ok((Form::New, expected(vec![wanted.clone(), wanted]))));
        }
    }

    #[test]
    fn no_part_of_a_request_is_one() {
        let sha256 = format!("SHA256:{USER}");
        for request in [
            old(USER.as_bytes(), format!("SHA256:{}", digest(Hash::Sha256)).as_bytes()),
            old(USER.as_bytes(), b"PUBKEY"),
            new(&["ping"]),
            new(&["pubkey", USER]),
            new(&["sign", &sha256, &digest(Hash::Sha256), &digest(Hash::Sha256)]),
        ] {
            assert!(parse(&request).is_ok());
            for length in 0..request.len() {
                assert!(parse(&request[..length]).is_err(), "{length}");
            }
            assert!(parse(&[&request[..], &[0]].concat()).is_err());
            // Whatever one byte is changed to, nothing panics, and every refusal is a single line.
            for at in 0..request.len() {
                for value in [0, 1, b':', b'@', 0x7f, 0x80, 0xff] {
                    let mut changed = request.clone();
                    changed[at] = value;
                    if let Err(sentence) = parse(&changed) {
                        assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_probe_is_told_from_digests() {
        for hash in Hash::ALL {
            let probe = Digest { bytes: vec![4; hash.size()], class_and_time: [0; 5] };
            let text = format!("{}@0000000000", "04".repeat(hash.size()));
            assert_eq!(Digest::parse(&text, hash), Ok(probe.clone()));
            assert!(probe.is_probe());
            let mut other = probe;
            other.bytes[hash.size() - 1] = 5;
            assert!(!other.is_probe());
        }
    }

    #[test]
    fn answers_have_the_documented_bytes() {
        let strings = [b"ab".to_vec(), b"".to_vec()];
        assert_eq!(success(Form::Old, &[]), Ok(vec![0; 6]));
        assert_eq!(success(Form::New, &[]), Ok(vec![0; 6]));
        assert_eq!(success(Form::Old, &strings[..1]), Ok(b"\0\0\0\x02\0\0ab".to_vec()));
        let expected = b"\0\0\0\x08\0\0\0\x02\0\x02\0\0ab".to_vec();
        assert_eq!(success(Form::New, &strings), Ok(expected));
        assert!(success(Form::Old, &strings).is_err());
        // The longest answers that the lengths can express.
        assert!(success(Form::Old, &[vec![0; 65_535]]).is_ok());
        assert!(success(Form::Old, &[vec![0; 65_536]]).is_err());
        assert!(success(Form::New, &[vec![0; 65_531]]).is_ok());
        assert!(success(Form::New, &[vec![0; 65_532]]).is_err());
        assert_eq!(failure("no"), b"\0\x01\0\0\0\x03no\n");
        let long = failure(&"x".repeat(70_000));
        assert_eq!((long.len(), &long[..6]), (6 + 65_535, &[0, 1, 0, 0, 0xff, 0xff][..]));
        assert!(long.ends_with(b"x\n"));
    }

    #[test]
    fn a_ping_may_ask_who_answers() {
        assert_eq!(parse(WHO_ANSWERS), Ok((Form::New, Command::Program)));
        let answer = success(Form::New, &program()).unwrap_or_default();
        assert!(is_ours(&answer) && is_ours(&failure(&Refusal::Stranger.to_string())));
        // These are obs-signd's answers to any ping, and to a host that it does not know.
        assert!(!is_ours(&[0; 6]) && !is_ours(&failure("illegal host 192.0.2.1")) && !is_ours(b""));
    }
}
