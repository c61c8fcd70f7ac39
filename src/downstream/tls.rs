//! TLS toward clients: `[server.tls]` becomes an acceptor.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

use crate::config::{Server, ServerTls};
use crate::downstream::client_verifier::client_verifier;
use crate::timestamp::Timestamp;

/// HTTP/2 in ALPN (RFC 9113 section 3.2).
pub(crate) const H2: &[u8] = b"h2";

/// Reads certificate, key and client authority, where `[server.tls]` is written. A client that offers both gets
/// HTTP/2, unless that is turned off. Errors name the file.
pub fn acceptor(server: &Server) -> io::Result<Option<TlsAcceptor>> {
    let tls = server.tls.as_ref();
    tls.map(|tls| acceptor_of(tls, server.limits.streams > 0))
        .transpose()
}

/// TLS 1.2 and 1.3 with these files.
pub(crate) fn acceptor_of(tls: &ServerTls, has_http2: bool) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match client_verifier(tls, &provider)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| about(&tls.key, error))?;
    let mut config = builder
        .with_single_cert(certificates(&tls.cert)?, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => io::Error::other(format!(
                "the key in {} is not that of the certificate in {}; give the two that belong together",
                tls.key.display(),
                tls.cert.display()
            )),
            error => about(&tls.cert, error),
        })?;
    if tls.client_ca.is_some() {
        // A resumed session would not look at the certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    if has_http2 {
        config.alpn_protocols.push(H2.to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(crate) fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| about(file, error))?;
    if certificates.is_empty() {
        return Err(about(file, "it holds no certificate"));
    }
    Ok(certificates)
}

/// The end of the first certificate of the chain; `None`: it cannot be read.
pub(crate) fn certificate_end(tls: &ServerTls) -> Option<Timestamp> {
    let chain = certificates(&tls.cert).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let end = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_unix(end))
}

pub(crate) fn about(file: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}; it must be PEM", file.display()))
}
