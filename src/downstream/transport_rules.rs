//! [`TransportRules`]: how connections are made: plain or TLS, with which certificate, and what clients must
//! show.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::{ClientAuth, Server};
use crate::downstream::tls;
use crate::timestamp::Timestamp;

/// The rules of connections that begin at one time.
pub(crate) struct TransportRules {
    pub(crate) acceptor: Option<TlsAcceptor>,
    files: TlsFiles,
    certificate_end: Option<Timestamp>,
    has_http2: bool,
    /// Set when connections under these rules must end.
    ended: watch::Sender<bool>,
}

/// What the files of `[server.tls]` held, as digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TlsFiles {
    own: Option<[[u8; 32]; 2]>,
    demands: Demands,
}

/// What clients must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Demands {
    authority: Option<[u8; 32]>,
    /// The file of revoked certificates. The verifier reads it again by itself.
    revocations: Option<PathBuf>,
    is_required: bool,
}

impl TransportRules {
    /// Reads the files of `[server.tls]`, if it is written. Errors name the file.
    pub(crate) fn read(server: &Server) -> io::Result<Self> {
        let files = TlsFiles::read(server)?;
        let acceptor = tls::acceptor(server)?;
        if TlsFiles::read(server)? != files {
            return Err(io::Error::other(
                "the files of [server.tls] change while they are read; try again",
            ));
        }
        Ok(Self {
            acceptor,
            files,
            certificate_end: server.tls.as_ref().and_then(tls::certificate_end),
            has_http2: server.limits.streams > 0,
            ended: watch::Sender::new(false),
        })
    }

    /// The end of the certificate that clients are shown.
    pub(crate) fn certificate_end(&self) -> Option<Timestamp> {
        self.certificate_end
    }

    /// Whether a connection would be made in the same way under `other`.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.files == other.files && self.has_http2 == other.has_http2
    }

    /// Whether a connection under these rules might not be there under `new`.
    pub(crate) fn is_outdated_by(&self, new: &Self) -> bool {
        let has_tls = self.acceptor.is_some() == new.acceptor.is_some();
        !has_tls || self.files.demands != new.files.demands
    }

    /// Ends the connections under these rules, after the requests that are in flight.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Hears when these connections must end.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }
}

impl TlsFiles {
    fn read(server: &Server) -> io::Result<Self> {
        let Some(tls) = &server.tls else {
            return Ok(Self::default());
        };
        let authority = tls.client_ca.as_deref().map(digest).transpose()?;
        let is_required = authority.is_some() && tls.client_auth == ClientAuth::Required;
        Ok(Self {
            own: Some([digest(&tls.cert)?, digest(&tls.key)?]),
            demands: Demands {
                authority,
                revocations: tls.client_crl.clone(),
                is_required,
            },
        })
    }
}

fn digest(file: &Path) -> io::Result<[u8; 32]> {
    let bytes = std::fs::read(file).map_err(|error| tls::about(file, error))?;
    let bytes = zeroize::Zeroizing::new(bytes);
    Ok(Sha256::digest(&*bytes).into())
}

impl std::fmt::Debug for TransportRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransportRules")
            .field("tls", &self.acceptor.is_some())
            .finish_non_exhaustive()
    }
}
