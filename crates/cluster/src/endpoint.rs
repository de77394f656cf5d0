//! The addresses of etcd's members, and the certificates by which this host and etcd authenticate each other.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};

/// The address of a member: `https://HOST:PORT`. It may be `http://` for `localhost` or an address of the
/// loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("the endpoint {text:?} must be like https://10.0.0.1:2379");
        let text = text.strip_suffix('/').unwrap_or(text);
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address: Option<IpAddr> = inside.unwrap_or(host).parse().ok();
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        let is_host = match address {
            Some(IpAddr::V6(_)) => inside.is_some(),
            Some(IpAddr::V4(_)) => inside.is_none(),
            None => is_name,
        };
        if !is_host || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong());
        }
        match scheme {
            "https" => {}
            "http" if host == "localhost" || address.is_some_and(|ip| ip.is_loopback()) => {}
            "http" => {
                return Err(format!(
                    "the endpoint {text:?} must begin with https://: without TLS, anybody on the way decides which \
                     key counts; http:// is for this host only"
                ));
            }
            _ => return Err(wrong()),
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Endpoint {
    /// Whether the member uses TLS.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }
}

/// The members of etcd, and the credentials to talk to them.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The addresses of the members, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The certificates (PEM) of the authorities that issued etcd's certificates.
    pub ca: Option<Vec<u8>>,
    /// The certificate of this host and its secret key (PEM), if etcd asks for client certificates.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Connection {
    /// Returns the TLS configuration, or `None` if no endpoint uses TLS.
    pub(crate) fn tls(&self) -> Result<Option<TlsConfig>> {
        if !self.endpoints.iter().any(Endpoint::is_tls) {
            return Ok(None);
        }
        let Some(ca) = &self.ca else {
            return Err(Error::Settings(
                "cluster.ca_file: is needed for https:// endpoints: the certificate of the authority that etcd's \
                 certificates come from"
                    .into(),
            ));
        };
        let authorities = certificates("cluster.ca_file", ca)?;
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&authorities));
        if let Some((chain, key)) = &self.identity {
            let chain = certificates("cluster.cert_file", chain)?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, secret_key(key)?)));
        }
        Ok(Some(tls.build()))
    }
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let wrong = || Error::Settings(format!("{setting}: holds no certificate in PEM"));
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| wrong())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

fn secret_key(pem: &[u8]) -> Result<PrivateKey<'static>> {
    PrivateKey::from_pem(pem)
        .map_err(|_| Error::Settings("cluster.key_file: holds no secret key in PEM".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_spoken_with_in_the_clear() {
        for good in [
            "https://10.0.0.1:2379",
            "https://etcd-1.example.org:2379/",
            "https://[2001:db8::1]:2379",
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "http://localhost:2379",
        ] {
            let parsed = good.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), Ok(good.trim_end_matches('/')));
        }
        for (bad, expected) in [
            ("http://10.0.0.1:2379", "must begin with https://"),
            ("http://localhost.example.org:1", "must begin with https://"),
            ("10.0.0.1:2379", "must be like"),
            ("https://10.0.0.1", "must be like"),
            ("https://:2379", "must be like"),
            ("https://a:0", "must be like"),
            ("https://a:65536", "must be like"),
            ("https://a/b:1", "must be like"),
            ("https://user@a:1", "must be like"),
            ("https://a b:1", "must be like"),
            ("https://2001:db8::1:2379", "must be like"),
            ("https://[10.0.0.1]:2379", "must be like"),
            ("unix:///run/etcd:1", "must be like"),
            ("", "must be like"),
        ] {
            let why = bad.parse::<Endpoint>().err().unwrap_or_default();
            assert!(why.contains(expected), "{bad}: {why}");
        }
    }

    #[test]
    fn tls_needs_an_authority_and_whole_files() {
        let connection = |ca: Option<&str>, identity: Option<(&str, &str)>| Connection {
            endpoints: "https://a:1".parse().into_iter().collect(),
            ca: ca.map(Into::into),
            identity: identity.map(|(chain, key)| (chain.into(), key.into())),
        };
        let why = |connection: Connection| {
            connection.tls().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(why(connection(None, None)).contains("cluster.ca_file: is needed"));
        assert!(why(connection(Some("x"), None)).contains("cluster.ca_file: holds no"));
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(why(connection(Some(ca), Some(("", "")))).contains("cluster.cert_file: holds no"));
        assert!(why(connection(Some(ca), Some((ca, ca)))).contains("cluster.key_file: holds no"));
    }
}
