//! Answers requests: finds the key, decides whether it may sign, signs, and verifies the signature.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gpg::{Fingerprint, clock};
use keystore::{NameEmail, RunningJob, SigningFiles, SigningKeys};

use crate::algorithm::Hash;
use crate::certificate::Certificate;
use crate::key_file::{self, Unopened};
use crate::open_keys::{OpenKey, OpenKeys};
use crate::public_key::PublicKey;
use crate::refusal::Refusal;
use crate::request::{self, Command, Digest};
use crate::secret_key::{SecretKey, Unusable};
use crate::sexp::Sexp;
use crate::signature;

/// How long gpg-agent may take for all signatures of one request.
const AGENT_TIME: Duration = Duration::from_secs(20);

/// The maximum number of digests in a request for which gpg-agent signs. A package takes two.
const AGENT_DIGESTS_MAX: usize = 4;

/// The maximum number of bits of a number in a signature. GnuPG by default makes no longer RSA keys, and a
/// signature with 32,768 bits takes minutes.
const SIGNATURE_BITS_MAX: usize = 8192;

/// How many times to look for a home that is not found although it exists.
const LOOKS_MAX: usize = 10;

/// What may be signed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Whether SHA-1 digests are signed.
    pub sha1: bool,
    /// Whether expired keys may sign.
    pub expired: bool,
}

/// Answers requests for signatures with the keys of this host.
#[derive(Debug)]
pub struct Signer {
    keys: SigningKeys,
    open_keys: OpenKeys,
    policy: Policy,
}

/// The outcome of a request, and what is known about its key.
#[derive(Debug)]
pub struct Reply {
    /// The strings of the answer.
    pub answer: Result<Vec<Vec<u8>>, Refusal>,
    /// The identity whose key was asked for.
    pub name_email: Option<NameEmail>,
    /// The fingerprint of the key.
    pub fingerprint: Option<Fingerprint>,
    /// GnuPG's name of the key's algorithm, like `rsa4096`.
    pub algorithm: Option<String>,
    /// How many signatures were made.
    pub signatures: usize,
}

impl Signer {
    /// Signs with `keys`, as far as `policy` allows.
    pub fn new(keys: SigningKeys, policy: Policy) -> Self {
        Self { keys, open_keys: OpenKeys::default(), policy }
    }

    /// Returns how many jobs are running, and how many requests are waiting for one.
    pub fn load(&self) -> (usize, usize) {
        self.keys.load()
    }

    /// Answers a request. `may_sign` tells whether the client may use the key of an identity.
    pub fn reply(&self, command: &Command, may_sign: impl FnOnce(&NameEmail) -> bool) -> Reply {
        let mut reply = Reply {
            answer: Ok(Vec::new()),
            name_email: None,
            fingerprint: None,
            algorithm: None,
            signatures: 0,
        };
        reply.answer = match command {
            Command::Ping => Ok(Vec::new()),
            Command::Program => Ok(request::program()),
            Command::PublicKey { user } => self
                .known(user, may_sign, &mut reply)
                .and_then(|name_email| self.public_key(&name_email)),
            Command::Sign { user, hash, digests } => self
                .known(user, may_sign, &mut reply)
                .and_then(|name_email| self.sign(&name_email, *hash, digests, &mut reply)),
        };
        reply
    }

    /// Returns the identity of a user if the client may use its key.
    fn known(
        &self,
        user: &str,
        may_sign: impl FnOnce(&NameEmail) -> bool,
        reply: &mut Reply,
    ) -> Result<NameEmail, Refusal> {
        // A user that is not the name of an identity cannot have a key.
        let name_email = NameEmail::parse(user)
            .map_err(|_| Refusal::Unknown(user.chars().take(200).collect()))?;
        reply.name_email = Some(name_email.clone());
        match may_sign(&name_email) {
            true => Ok(name_email),
            false => Err(Refusal::Forbidden(user.into())),
        }
    }

    /// Calls `look` until it finds something. Fails if the identity has no key.
    fn find<T>(
        &self,
        name_email: &NameEmail,
        look: impl Fn() -> keystore::Result<Option<T>>,
    ) -> Result<T, Refusal> {
        let failed = |why| Refusal::failed(name_email, why);
        for _ in 0..LOOKS_MAX {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if self.keys.has_no_key(name_email).map_err(failed)? {
                return Err(Refusal::Unknown(name_email.to_string()));
            }
        }
        Err(failed("its home comes and goes".into()))
    }

    fn public_key(&self, name_email: &NameEmail) -> Result<Vec<Vec<u8>>, Refusal> {
        let armored =
            self.find(name_email, || match self.keys.armored_certificate(name_email) {
                Err(keystore::Error::NoKey(_)) => Ok(None),
                other => other.map(Some),
            })?;
        Ok(vec![armored.into_bytes()])
    }

    fn sign(
        &self,
        name_email: &NameEmail,
        hash: Hash,
        digests: &[Digest],
        reply: &mut Reply,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        if hash == Hash::Sha1 && !self.policy.sha1 {
            return Err(Refusal::Unfit(format!(
                "{name_email}: SHA1 is not signed, as its signatures can be forged; use sign -h sha256, or \
                 hash: SHA256 in sign.conf"
            )));
        }
        // Answering probes alone takes no time and needs no job.
        let takes_time = digests.iter().any(|digest| !digest.is_probe());
        let open_key = self.open_keys.of(name_email);
        let job = takes_time.then(|| self.keys.take_job()).transpose()?;
        let answer = self.sign_now(name_email, hash, digests, job, &open_key, reply);
        // The key may be gone, or may no longer sign. So it is not kept for the requests that are waiting.
        if answer.is_err() {
            open_key.forget();
        }
        answer
    }

    /// As [`Signer::sign`], once it is the turn of this request.
    fn sign_now(
        &self,
        name_email: &NameEmail,
        hash: Hash,
        digests: &[Digest],
        job: Option<RunningJob<'_>>,
        open_key: &OpenKey,
        reply: &mut Reply,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let files = self.find(name_email, || self.keys.files(name_email))?;
        let damaged = |why: String| Refusal::failed(name_email, format!("the keyring {why}"));
        let certificate = Certificate::read(&files.pubring).map_err(damaged)?;
        reply.fingerprint = certificate.fingerprint();
        reply.algorithm = Some(certificate.key.name());
        self.check_fit(name_email, &certificate)?;
        check_size(name_email, hash, &certificate.key)?;
        if !certificate.is_of(name_email) {
            return Err(damaged("holds the certificate of another identity".into()));
        }
        let failed = |why: String| Refusal::failed(name_email, why);
        let means = match job {
            Some(job) => {
                let key = open_key.get(&files, || secret_key(&files, &certificate.key));
                Some(self.means(name_email, digests, key.map_err(failed)?, job)?)
            }
            None => None,
        };
        let mut answer = Vec::with_capacity(digests.len());
        for digest in digests {
            let packet = match &means {
                Some(means) if !digest.is_probe() => {
                    let numbers = self.numbers(means, &files, hash, digest).map_err(failed)?;
                    // A signature with an error in its computation could reveal the secret key.
                    if !certificate.key.verifies(hash, &digest.bytes, &numbers) {
                        return Err(failed("the signature that was made is a wrong one".into()));
                    }
                    reply.signatures += 1;
                    signature::version_3(&certificate, hash, digest, &numbers)
                }
                _ => signature::probe_answer(&certificate, hash, digest),
            };
            answer.push(packet.ok_or_else(|| failed("the signature is too long".into()))?);
        }
        Ok(answer)
    }

    /// Decides how the key signs these digests. Without `key`, gpg-agent must sign. It is slow and must not
    /// take the place of faster requests, so its work gives `job` back and waits for an agent job.
    fn means<'a>(
        &'a self,
        name_email: &NameEmail,
        digests: &[Digest],
        key: Option<Arc<SecretKey>>,
        job: RunningJob<'a>,
    ) -> Result<Means<'a>, Refusal> {
        if let Some(key) = key {
            return Ok(Means::Here { key, _job: job });
        }
        drop(job);
        check_few(name_email, digests)?;
        let job = self.keys.take_agent_job()?;
        Ok(Means::Agent { until: Instant::now() + AGENT_TIME, _job: job })
    }

    /// Makes a signature over a digest and returns its numbers. `Err` is a sentence.
    fn numbers(
        &self,
        means: &Means,
        files: &SigningFiles,
        hash: Hash,
        digest: &Digest,
    ) -> Result<Vec<Vec<u8>>, String> {
        match means {
            Means::Here { key, .. } => key.sign(hash, &digest.bytes).map_err(|e| e.to_string()),
            Means::Agent { until, .. } => self.sign_by_agent(files, hash, &digest.bytes, *until),
        }
    }

    /// Fails unless the key may sign now.
    fn check_fit(&self, name_email: &NameEmail, certificate: &Certificate) -> Result<(), Refusal> {
        let unfit = |why: String| Err(Refusal::Unfit(format!("{name_email}: {why}")));
        if certificate.revoked {
            return unfit("the key has been revoked".into());
        }
        if let PublicKey::Other(number) = certificate.key {
            return unfit(format!(
                "the key is of algorithm {number}, which cannot be verified here"
            ));
        }
        let bits = certificate.key.signature_bits();
        if bits.iter().any(|bits| *bits > SIGNATURE_BITS_MAX) {
            return unfit(format!(
                "an {} key takes too long; {SIGNATURE_BITS_MAX} bits are the most",
                certificate.key.name()
            ));
        }
        if !certificate.signs {
            return unfit("the key may certify and not sign, as its certificate says".into());
        }
        let now = clock::believed().map_err(|e| Refusal::failed(name_email, e))?;
        if clock::is_behind(now, certificate.created) {
            return Err(Refusal::failed(
                name_email,
                format!(
                    "the clock of the sign host says {}, when the key was not made yet ({}); set it",
                    clock::timestamp(now),
                    clock::timestamp(certificate.created)
                ),
            ));
        }
        match certificate.expires {
            Some(at) if at <= now && !self.policy.expired => unfit(format!(
                "the key expired {}; whatever it signs now is refused for ever, also when it is prolonged; \
                 on the sign host, run: copr-keygen prolong --expired",
                clock::timestamp(at)
            )),
            _ => Ok(()),
        }
    }

    /// Makes a signature by gpg-agent and returns its numbers. `Err` is a sentence.
    fn sign_by_agent(
        &self,
        files: &SigningFiles,
        hash: Hash,
        digest: &[u8],
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, String> {
        let signed = self.keys.sign_by_agent(files, hash.number(), digest, deadline);
        let signed = signed.map_err(|e| e.to_string())?;
        let values = Sexp::parse(&signed).and_then(|signed| {
            let [_, values] = signed.list()? else { return None };
            let names = ["r", "s"].into_iter();
            Some(names.filter_map(|name| values.value(name)).map(<[u8]>::to_vec).collect())
        });
        values.ok_or_else(|| "gpg-agent answered something else than a signature".into())
    }
}

/// Fails if a request has too many digests for gpg-agent.
fn check_few(name_email: &NameEmail, digests: &[Digest]) -> Result<(), Refusal> {
    match digests.len() <= AGENT_DIGESTS_MAX {
        true => Ok(()),
        false => Err(Refusal::Unfit(format!(
            "{name_email}: only gpg-agent can sign with this key, and a request has {AGENT_DIGESTS_MAX} digests for \
             it at most, not {}",
            digests.len()
        ))),
    }
}

/// Fails if digests of this algorithm are too short for the key.
fn check_size(name_email: &NameEmail, hash: Hash, key: &PublicKey) -> Result<(), Refusal> {
    let needed = key.digest_size_min();
    if hash.size() >= needed {
        return Ok(());
    }
    let bits = needed * 8;
    Err(Refusal::Unfit(format!(
        "{name_email}: a signature of its {} key over a digest of {} is refused by verifiers; use sign -h sha{bits}, \
         or hash: SHA{bits} in sign.conf",
        key.name(),
        hash.name()
    )))
}

/// How a key signs, with the job in which it does so.
enum Means<'a> {
    /// In this process.
    Here { key: Arc<SecretKey>, _job: RunningJob<'a> },
    /// By gpg-agent, until this time.
    Agent { until: Instant, _job: RunningJob<'a> },
}

/// Opens the secret key. Returns `None` if only gpg-agent can sign with it. `Err` is a sentence.
fn secret_key(files: &SigningFiles, public: &PublicKey) -> Result<Option<SecretKey>, String> {
    let damaged = |why: &str| Err(format!("the secret key is damaged: {why}"));
    let numbers = match key_file::open(&files.secret_key, &files.passphrase) {
        Ok(numbers) => numbers,
        Err(Unopened::OnlyByAgent(why)) => {
            log::debug!("{}: {why}", files.keygrip);
            return Ok(None);
        }
        Err(Unopened::WrongPassphrase) => {
            return Err("the secret key does not open with the passphrase beside it".into());
        }
        Err(Unopened::Malformed(why)) => return damaged(why),
    };
    match SecretKey::new(&numbers, public) {
        Ok(key) => Ok(Some(key)),
        Err(Unusable::OnlyByAgent) => Ok(None),
        Err(Unusable::OfAnother) => Err("the secret key is not the one of the certificate".into()),
        Err(Unusable::Malformed(why)) => damaged(&why),
    }
}
