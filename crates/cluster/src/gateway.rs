//! A client of etcd's JSON gateway. A request is a JSON object, and any member can answer it. The gateway
//! encodes 64-bit numbers as strings and bytes as Base64, and omits fields that are zero or empty
//! (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>).

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64ct::{Base64, Encoding};
use gpg::text::printable_start;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::endpoint::{Connection, Endpoint};
use crate::error::{Error, Result, WORDS_MAX};

/// How long to wait for one member before asking the next. A member without a leader answers only after 7 s.
const MEMBER_TIME: Duration = Duration::from_millis(1500);

/// How long to wait after no member has answered.
const PAUSE: Duration = Duration::from_millis(100);

/// The maximum size of an answer in bytes. No answer of etcd is that long, even one with many values.
const ANSWER_MAX: u64 = 64 << 20;

/// The gateways of all members.
#[derive(Debug)]
pub struct Gateway {
    agent: Agent,
    endpoints: Vec<Endpoint>,
    /// The index of the member to ask first: the one that answered last.
    current: AtomicUsize,
}

impl Gateway {
    pub fn new(connection: &Connection) -> Result<Self> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .user_agent("copr-keygen");
        if let Some(tls) = connection.tls()? {
            config = config.tls_config(tls);
        }
        Ok(Self {
            agent: config.build().into(),
            endpoints: connection.endpoints.clone(),
            current: AtomicUsize::new(0),
        })
    }

    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Asks one member after the other until one answers, by `deadline` at the latest.
    pub fn call(&self, path: &str, request: &Value, deadline: Instant) -> Result<Value> {
        self.any_member(deadline, |endpoint, patience| {
            self.call_member(endpoint, path, request, patience)
        })
    }

    /// As [`Gateway::call`], but asks only one member.
    fn call_member(
        &self,
        endpoint: &Endpoint,
        path: &str,
        request: &Value,
        patience: Duration,
    ) -> Result<Value> {
        self.call_member_at(endpoint, path, request, patience).map(|(answer, _)| answer)
    }

    /// As [`Gateway::call`], but asks only one member. Also returns the time of that member's clock (`Date`,
    /// RFC 9110, section 6.6.1).
    pub fn call_member_at(
        &self,
        endpoint: &Endpoint,
        path: &str,
        request: &Value,
        patience: Duration,
    ) -> Result<(Value, Option<SystemTime>)> {
        let post = self.agent.post(format!("{endpoint}{path}"));
        let post = post.config().timeout_global(Some(patience)).build();
        let response = send(post, request)?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        answer(response).map(|answer| (answer, date))
    }

    /// Starts a call whose answer does not end. A read of the answer fails if no data arrives for `silence`.
    pub fn stream(
        &self,
        path: &str,
        request: &Value,
        silence: Duration,
        deadline: Instant,
    ) -> Result<Body> {
        self.any_member(deadline, |endpoint, patience| {
            let post = self.agent.post(format!("{endpoint}{path}"));
            let post = post
                .config()
                .timeout_connect(Some(patience))
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(silence))
                .build();
            let response = send(post, request)?;
            match response.status().as_u16() {
                200 => Ok(response.into_body()),
                _ => answer(response).and(Err(Error::Refused("it streams nothing".into()))),
            }
        })
    }

    fn any_member<T>(
        &self,
        deadline: Instant,
        ask: impl Fn(&Endpoint, Duration) -> Result<T>,
    ) -> Result<T> {
        let count = self.endpoints.len().max(1);
        let mut failed = Error::Unreachable("there was no time to ask".into());
        for attempt in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let number = self.current.load(Ordering::Relaxed) % count;
            let Some(endpoint) = self.endpoints.get(number) else { break };
            match ask(endpoint, left.min(MEMBER_TIME)) {
                Err(Error::Unreachable(why)) => {
                    failed = Error::Unreachable(format!("{endpoint}: {why}"));
                    // Go on to the next member, unless another thread has done so already.
                    let next = (number + 1) % count;
                    let _ = self.current.compare_exchange(
                        number,
                        next,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    if attempt % count == count - 1 {
                        std::thread::sleep(PAUSE.min(left));
                    }
                }
                result => return result,
            }
        }
        Err(failed)
    }
}

fn send(
    request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    body: &Value,
) -> Result<Response<Body>> {
    request
        .content_type("application/json")
        .send(body.to_string())
        .map_err(|error| Error::Unreachable(reason(&error)))
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".into(),
        error => printable_start(&error.to_string(), WORDS_MAX),
    }
}

/// Reads an answer and parses its JSON object.
fn answer(response: Response<Body>) -> Result<Value> {
    let status = response.status().as_u16();
    let mut text = Vec::new();
    let cut = |why: String| Error::Unreachable(format!("the answer is cut: {why}"));
    response
        .into_body()
        .into_reader()
        .take(ANSWER_MAX)
        .read_to_end(&mut text)
        .map_err(|error| cut(printable_start(&error.to_string(), WORDS_MAX)))?;
    let parsed = serde_json::from_slice::<Value>(&text);
    match parsed {
        Ok(object @ Value::Object(_)) if status == 200 => Ok(object),
        Ok(object) => Err(failure(status, &object)),
        Err(_) if status == 200 => Err(cut("it is no JSON".into())),
        Err(_) => Err(Error::Unreachable(format!("HTTP status {status}"))),
    }
}

/// Converts an error of etcd, whose codes are those of gRPC. After code 4 or 14, another member may do better.
pub fn failure(status: u16, object: &Value) -> Error {
    let text = ["error", "message"].iter().find_map(|field| object[*field].as_str());
    let words = printable_start(text.unwrap_or("it does not say why"), WORDS_MAX);
    match object["code"].as_u64() {
        Some(11) => Error::Compacted(0),
        Some(4 | 14) => Error::Unreachable(words),
        Some(7 | 16) => {
            Error::Refused(format!("{words}: it wants another certificate of this host"))
        }
        Some(8) => Error::full(&words),
        Some(_) => Error::Refused(words),
        None if status >= 500 => Error::Unreachable(words),
        None => Error::Refused(words),
    }
}

/// Encodes bytes for the gateway.
pub fn bytes(bytes: &[u8]) -> Value {
    Base64::encode_string(bytes).into()
}

/// Decodes the bytes in a field; empty if the field is omitted.
pub fn bytes_of(field: &Value) -> Result<Vec<u8>> {
    Base64::decode_vec(field.as_str().unwrap_or_default())
        .map_err(|_| Error::Unreachable("an answer is not what etcd answers: no Base64".into()))
}

/// Parses the number in a field; zero if the field is omitted.
pub fn number_of(field: &Value) -> u64 {
    let text = field.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| field.as_u64()).unwrap_or_default()
}
