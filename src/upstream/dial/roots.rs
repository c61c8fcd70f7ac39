//! Trusted certificate authorities of TLS connections.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Whom to trust: built once, cheap to clone, shared by every [`Dialer`](super::Dialer).
#[derive(Clone, Debug)]
pub struct Roots(pub(super) Arc<ClientConfig>, pub(super) Arc<RootCertStore>);

impl Roots {
    /// The roots that an endpoint needs: none if it is plain HTTP.
    pub(crate) fn for_endpoint(
        tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<Option<Self>, RootsError> {
        if tls {
            Self::load(ca_file).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The roots in `ca_file` alone, or else those of the platform.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, RootsError> {
        let Some(path) = ca_file else {
            return Self::platform();
        };
        let pem = std::fs::read(path)
            .map_err(|error| RootsError(format!("cannot read {}: {error}", path.display())))?;
        Self::from_pem(&pem).map_err(|error| RootsError(format!("{}: {error}", path.display())))
    }

    /// The roots that the platform trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    pub fn platform() -> Result<Self, RootsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // A platform's store may hold certificates that no verifier can use: they are left out.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let why = found
                .errors
                .first()
                .map(|e| format!(" ({e})"))
                .unwrap_or_default();
            return Err(RootsError(format!(
                "this machine has no root certificates{why}: install ca-certificates or set ca_file"
            )));
        }
        Self::from_store(store)
    }

    /// The certificates in `pem`, each of which must be good.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate
                .map_err(|error| RootsError(format!("not a PEM certificate: {error}")))?;
            store
                .add(certificate)
                .map_err(|error| RootsError(format!("not a usable root certificate: {error}")))?;
        }
        if store.is_empty() {
            return Err(RootsError(
                "holds no certificate: PEM with BEGIN CERTIFICATE is expected".to_owned(),
            ));
        }
        Self::from_store(store)
    }

    /// The same, offering this protocol in the handshake (ALPN) in place of HTTP/1.1.
    #[must_use]
    pub fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = vec![protocol.to_vec()];
        Self(Arc::new(config), Arc::clone(&self.1))
    }

    /// The same, for a protocol that is not HTTP: none is offered.
    #[must_use]
    pub(crate) fn speaking_no_http(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols.clear();
        Self(Arc::new(config), Arc::clone(&self.1))
    }

    /// Whether both trust the same authorities.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.1.roots == other.1.roots
    }

    fn from_store(store: RootCertStore) -> Result<Self, RootsError> {
        let store = Arc::new(store);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RootsError(error.to_string()))?
            .with_root_certificates(Arc::clone(&store))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config), store))
    }
}

/// Why there are no roots to trust; the text says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootsError(String);

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RootsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(Roots::from_pem(b"").is_err());
        assert!(
            Roots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .is_err()
        );
        let missing = Roots::load(Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/ca.pem"));
    }
}
