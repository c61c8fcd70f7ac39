//! Client certificate verifier: checks certificates against the authority in `client_ca` and the revocation
//! list in `client_crl`. It reads the list again when the file changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::config::{ClientAuth, ServerTls};
use crate::downstream::tls::{about, certificates};
use crate::transport::bounded_file::read_file;
use crate::transport::file_state::FileState;

/// Between two looks at the file of the revocation list.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of a revocation list at most.
const CRL_BYTES: u64 = 16 << 20;

/// Checks with what was in the files when they were last good.
struct ClientVerifier {
    rules: Rules,
    file: PathBuf,
    current: ArcSwap<Arc<dyn ClientCertVerifier>>,
}

/// What does not change while cosgate runs.
struct Rules {
    roots: Arc<RootCertStore>,
    /// The roots' names, by which a client chooses its certificate.
    subjects: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
    auth: ClientAuth,
}

/// The verifier of `[server.tls]`, if it has an authority for clients.
pub(crate) fn client_verifier(
    tls: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(authority) = &tls.client_ca else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        let added = roots.add(certificate);
        added.map_err(|error| about(authority, error))?;
    }
    let rules = Rules {
        subjects: roots.subjects(),
        roots: Arc::new(roots),
        provider: Arc::clone(provider),
        auth: tls.client_auth,
    };
    let Some(file) = &tls.client_crl else {
        let verifier = rules.verifier(Vec::new());
        return verifier.map(Some).map_err(|error| about(authority, error));
    };
    let state = FileState::of(file);
    let current = rules.verifier(revocation_lists(file)?);
    let current = current.map_err(|error| about(file, error))?;
    let verifier = Arc::new(ClientVerifier {
        rules,
        file: file.clone(),
        current: ArcSwap::from_pointee(current),
    });
    let watched = Arc::downgrade(&verifier);
    std::thread::Builder::new()
        .name("client-crl".to_owned())
        .spawn(move || watch(&watched, state))?;
    Ok(Some(verifier))
}

impl Rules {
    /// With revocation lists every certificate of a chain must be on a list that is in its time, or
    /// rather not on it: no list, no proof that a certificate still counts (RFC 5280 section 6.3).
    fn verifier(
        &self,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<dyn ClientCertVerifier>, rustls::server::VerifierBuilderError> {
        let (roots, provider) = (Arc::clone(&self.roots), Arc::clone(&self.provider));
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .with_crls(lists)
            .enforce_revocation_expiration();
        let builder = match self.auth {
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Required => builder,
        };
        builder.build()
    }
}

impl ClientVerifier {
    /// Reads the list again. While its file is not good the last list stays, to its own end.
    fn renew(&self) {
        let verifier = revocation_lists(&self.file).and_then(|lists| {
            let verifier = self.rules.verifier(lists);
            verifier.map_err(|error| about(&self.file, error))
        });
        match verifier {
            Ok(verifier) => {
                self.current.store(Arc::new(verifier));
                tracing::info!("the revocation list of client certificates has changed");
            }
            Err(error) => tracing::warn!(
                %error,
                "the revocation list of client certificates cannot be read: the last one stays in use"
            ),
        }
    }
}

/// Watches the file until nobody needs the verifier any more. A thread of its own: a file system that
/// hangs must not hold a core.
fn watch(verifier: &Weak<ClientVerifier>, mut last: Option<FileState>) {
    loop {
        std::thread::sleep(POLL_INTERVAL);
        let Some(verifier) = verifier.upgrade() else {
            return;
        };
        let now = FileState::of(&verifier.file);
        if now != last {
            last = now;
            verifier.renew();
        }
    }
}

fn revocation_lists(file: &Path) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let pem = read_file(file, CRL_BYTES)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| about(file, error))?;
    if lists.is_empty() {
        return Err(about(file, "it holds no revocation list (X509 CRL)"));
    }
    Ok(lists)
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.current.load().client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.rules.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let current = self.current.load();
        current.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let current = self.current.load();
        current.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let current = self.current.load();
        current.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().supported_verify_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
