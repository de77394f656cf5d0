//! Decides which clients may make which requests, from the head alone, before any of the body is read. Neither
//! the client nor the log is told what was wrong with a token.

use std::path::Path;

use base64ct::{Base64, Encoding};
use glob::Pattern;
use keystore::NameEmail;
use tiny_http::Method;
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::peers::Peers;
use super::request::Head;
use super::tokens::{CREDENTIAL, ClientToken, Scope, Scopes, Tokens};
use crate::server::{Listener, Peer};
use crate::settings::Settings;
use crate::systemd::credentials::{self, Secret};

/// The access rules of this service.
#[derive(Debug)]
pub struct Access {
    /// The tokens, or `None` if there are none.
    tokens: Option<Tokens>,
    peers: Peers,
    /// Whether clients on other hosts are let in even without tokens.
    allow_anonymous: bool,
}

/// The client that sent a request, and its permissions.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The name of its token, or `None` if it needed none.
    pub token: Option<String>,
    /// The scopes it has, or `None` for all of them.
    scopes: Option<Scopes>,
    /// The identities it may ask for, or `None` for all of them.
    pub pattern: Option<Pattern>,
}

/// What a client needs to request a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Any token, so that only known clients learn which paths do not exist.
    Token,
    Scope(Scope),
}

impl Access {
    /// Reads the tokens, and looks up the users and groups that need none. No error contains any part of a
    /// token.
    pub fn load(settings: &Settings) -> keystore::Result<Self> {
        let peers = Peers::from_settings(settings)?;
        let tokens = read_tokens(settings)?;
        Ok(Self { tokens, peers, allow_anonymous: *settings.allow_anonymous.get()? })
    }

    /// Fails if other hosts can reach a socket while there are no tokens.
    pub fn check(&self, listeners: &[Listener]) -> keystore::Result<()> {
        if self.tokens.is_some() || self.allow_anonymous {
            return Ok(());
        }
        match listeners.iter().find_map(Listener::open_address) {
            None => Ok(()),
            Some(address) => Err(keystore::Error::Settings(format!(
                "other hosts can reach {address} and there are no tokens, so anybody could have keys \
                 made: give the service tokens (copr-keygen token, docs/backend.md), or set \
                 allow_anonymous = true"
            ))),
        }
    }

    /// Decides from the head of a request whether to let its client in. Fills in `caller` once the client is
    /// identified. Moves the token out of `head`.
    pub fn admit(&self, head: &mut Head, peer: Peer, caller: &mut Caller) -> Result<()> {
        let authorization = head.authorization.take();
        let need = needed(&head.method, &head.path);
        if need == Need::Nothing {
            return Ok(());
        }
        *caller = self.identify(authorization, peer)?;
        match (need, &caller.scopes) {
            (Need::Scope(scope), Some(scopes)) if !scopes.hold(scope) => Err(Error::Forbidden(
                format!("this token does not have the scope {}", scope.as_str()),
            )),
            _ => Ok(()),
        }
    }

    fn identify(&self, authorization: Option<Secret>, peer: Peer) -> Result<Caller> {
        let presented = authorization.map(|value| presented(value.as_bytes()));
        match (&self.tokens, presented, peer) {
            (Some(tokens), Some(token), _) => {
                let token = token.and_then(|token| tokens.find(&token));
                token.map(Caller::of).ok_or(Error::Unauthorized)
            }
            (_, _, Peer::Unix(user)) if self.peers.allow(user) => Ok(Caller::default()),
            (Some(_), ..) => Err(Error::Unauthorized),
            (None, _, Peer::Unix(_)) => Err(Error::Forbidden(
                "this user may not ask here; allow_users and allow_groups say who may".into(),
            )),
            (None, _, Peer::Tcp(_)) => Ok(Caller::default()),
        }
    }
}

impl Caller {
    fn of(token: &ClientToken) -> Self {
        Self {
            token: Some(token.name.clone()),
            scopes: Some(token.scopes.clone()),
            pattern: token.pattern.clone(),
        }
    }

    /// Fails with [`Error::Forbidden`] if the token is not for this identity. It does not matter whether the
    /// identity has a key.
    pub fn check(&self, name_email: &NameEmail) -> Result<()> {
        match &self.pattern {
            Some(pattern) if !pattern.matches(name_email.as_str()) => {
                Err(Error::Forbidden("this token is not for this identity".into()))
            }
            _ => Ok(()),
        }
    }
}

fn needed(method: &Method, path: &str) -> Need {
    match path {
        // Load balancers send OPTIONS without credentials, and the answer contains only the methods of the
        // path.
        _ if *method == Method::Options => Need::Nothing,
        "/ping" | "/ready" => Need::Nothing,
        "/gen_key" => Need::Scope(Scope::Generate),
        "/keys" | "/metrics" => Need::Scope(Scope::Read),
        path if path.starts_with("/keys/") => Need::Scope(Scope::Read),
        _ => Need::Token,
    }
}

/// Returns the token in the value of an `Authorization` header. With the Bearer scheme, this is the token
/// itself. With the Basic scheme, it is the password; the user name is ignored (RFC 9110, 11.4; RFC 7617).
pub fn presented(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(end);
    let credentials = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(Zeroizing::new(credentials.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let mut buffer = Zeroizing::new(vec![0; credentials.len()]);
    let pair = Base64::decode(credentials, &mut buffer).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(pair[colon + 1..].to_vec()))
}

fn read_tokens(settings: &Settings) -> keystore::Result<Option<Tokens>> {
    let passed = credentials::read(CREDENTIAL)?;
    let text = match (passed, settings.tokens_file.get()?) {
        (None, None) => return Ok(None),
        (Some(_), Some(path)) => {
            return Err(keystore::Error::Settings(format!(
                "there are tokens in the credential {CREDENTIAL} of the unit and in tokens_file {}; \
                 leave one of them",
                path.display()
            )));
        }
        (None, Some(path)) => {
            return tokens_of_file("tokens_file", path, &settings.state_dir).map(Some);
        }
        (Some(text), None) => text,
    };
    tokens_in(&format!("the credential {CREDENTIAL}"), &text).map(Some)
}

/// Reads the tokens in the file `path`. In errors, the file is described by `what` and its path. The file may
/// belong to the owner of `state_dir`, as in [`credentials::read_file`].
pub fn tokens_of_file(what: &str, path: &Path, state_dir: &Path) -> keystore::Result<Tokens> {
    let text = credentials::read_file(what, path, state_dir)?;
    tokens_in(&format!("{what} {}", path.display()), &text)
}

/// Parses the tokens in `text`. Errors give `what` as its source.
pub fn tokens_in(what: &str, text: &Secret) -> keystore::Result<Tokens> {
    Tokens::parse(text.as_bytes())
        .map_err(|why| keystore::Error::Settings(format!("{what}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Option<String> {
        presented(value.as_bytes()).map(|token| String::from_utf8_lossy(&token).into_owned())
    }

    #[test]
    fn tokens_come_in_two_schemes() {
        for (value, expected) in [
            ("Bearer secret", "secret"),
            ("bEARER   secret  ", "secret"),
            ("Basic Y29wcjpzZWNyZXQ=", "secret"),
            ("basic OnNlY3JldA==", "secret"),
            ("Basic Y29wcjpzZTpjcmV0", "se:cret"),
            ("Basic Y29wcjo=", ""),
            ("Bearer ", ""),
            ("Bearer a b", "a b"),
        ] {
            assert_eq!(shown(value).as_deref(), Some(expected), "{value}");
        }
        for value in [
            "",
            "Bearer",
            "secret",
            "Bearer\tsecret",
            "Digest username=\"copr\"",
            "Basic secret",
            "Basic Y29wcg==",
            "Basic Y29wcjpzZWNyZXQ",
            "Basic Y29wcjpzZWNyZXQ= x",
            "Basic \u{fc}",
            "Basic =",
        ] {
            assert_eq!(shown(value), None, "{value}");
        }
    }

    #[test]
    fn every_path_but_ping_and_ready_needs_something() {
        for (path, need) in [
            ("/ping", Need::Nothing),
            ("/ready", Need::Nothing),
            ("/gen_key", Need::Scope(Scope::Generate)),
            ("/keys", Need::Scope(Scope::Read)),
            ("/keys/", Need::Scope(Scope::Read)),
            ("/keys/a%23b@c/pubkey", Need::Scope(Scope::Read)),
            ("/metrics", Need::Scope(Scope::Read)),
            ("/ping/", Need::Token),
            ("/ready/", Need::Token),
            ("/gen_key/", Need::Token),
            ("/keysx", Need::Token),
            ("//keys", Need::Token),
            ("*", Need::Token),
            ("", Need::Token),
        ] {
            assert_eq!(needed(&Method::Get, path), need, "{path}");
            assert_eq!(needed(&Method::Options, path), Need::Nothing, "{path}");
        }
    }
}
