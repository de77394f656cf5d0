//! Sets up access to etcd, from the settings of the table `[cluster]` and from credentials.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::{Connection, Directory};
use keystore::{CREDENTIAL, Passphrases, Sealing, SealingProof};

use super::{Settings, Value};
use crate::error::{Error, Result};
use crate::systemd::credentials;

impl Settings {
    /// Sets up access to etcd if this host shares its keys with others. Reads credentials, which only root may
    /// be able to read, and checks that the state is sealed. Does not contact etcd yet.
    pub fn find_cluster(&mut self) -> Result<()> {
        let endpoints = self.cluster.endpoints.get()?.clone();
        if endpoints.is_empty() {
            return Ok(());
        }
        let marker = Passphrases::new(&self.keystore()?).marker()?;
        if marker.is_some() && self.sealing_key.is_none() {
            return Err(Error::Settings(format!(
                "cluster.endpoints: asking etcd takes the {CREDENTIAL} and certificates, which units have and a \
                 terminal has not: run this by systemd-run with the credentials (docs/cluster.md)"
            )));
        }
        let marker = marker.filter(|marker| marker.state == Sealing::Sealed);
        let (Some(marker), Some(key)) = (marker, &self.sealing_key) else {
            return Err(Error::Settings(format!(
                "cluster.endpoints: several hosts share sealed passphrases only, so that etcd never has what can sign: \
                 give this process the {CREDENTIAL} that all hosts have, then run `copr-keygen seal` (docs/cluster.md)"
            )));
        };
        let settings = &self.cluster;
        let certificate = public("cluster-cert", "cluster.cert_file", &settings.cert_file)?;
        let identity = match (certificate, self.secret_key()?) {
            (Some(certificate), Some(secret)) => Some((certificate, secret)),
            (None, None) => None,
            (Some(_), None) => return Err(half("cluster.key_file", "cluster.cert_file")),
            (None, Some(_)) => return Err(half("cluster.cert_file", "cluster.key_file")),
        };
        let ca = public("cluster-ca", "cluster.ca_file", &settings.ca_file)?;
        let connection = Connection { endpoints, ca, identity };
        let proof = SealingProof::new(marker, key.clone());
        let directory = Directory::new(&connection, settings.prefix.get()?, proof)?;
        self.cluster_directory = Some(Arc::new(directory));
        Ok(())
    }

    /// Reads the secret key that belongs to this host's certificate.
    fn secret_key(&self) -> Result<Option<Vec<u8>>> {
        let secret = match (credentials::read("cluster-key")?, self.cluster.key_file.get()?) {
            (Some(secret), _) => secret,
            (None, Some(file)) => {
                credentials::read_file("cluster.key_file", file, &self.state_dir)?
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(secret.as_bytes().to_vec()))
    }
}

/// Reads a certificate, from the credential or else from the file of the setting. It is not secret, so the
/// owner and mode of the file do not matter.
fn public(
    credential: &str,
    setting: &str,
    file: &Value<Option<PathBuf>>,
) -> Result<Option<Vec<u8>>> {
    if let Some(given) = credentials::read(credential)? {
        return Ok(Some(given.as_bytes().to_vec()));
    }
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| {
            Error::Settings(format!(
                "{setting} = {:?}: cannot be read: {e}",
                path.display().to_string()
            ))
        })
    };
    file.get()?.as_deref().map(read).transpose()
}

fn half(missing: &str, given: &str) -> Error {
    Error::Settings(format!("{missing}: is needed too where {given} is given"))
}
