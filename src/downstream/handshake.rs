//! TLS handshakes with clients: their time limit, and the reason when one fails.

use std::io;

use rustls::{CertificateError, Error as TlsError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::observe::Event;

/// After a failed handshake the connection stays open so long, and so many bytes of it are read: a
/// client of TLS 1.3 sends its request before its certificate is looked at, and bytes that nobody reads
/// would reset the connection before the client has read the alert.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    /// The client's certificate is past its time.
    CertificateExpired,
    /// The client's certificate is wrong in another way.
    CertificateInvalid,
    /// The client showed no certificate, and must.
    CertificateMissing,
    /// The client's certificate is not good yet.
    CertificateNotYetValid,
    /// The client's certificate is on the revocation list.
    CertificateRevoked,
    /// The client's certificate is of another authority.
    CertificateUnknownAuthority,
    /// The client ended the handshake with an alert: it does not trust our certificate, say.
    ClientAlert,
    /// The client went away.
    Closed,
    /// The revocation list reveals nothing of the certificate, or is past its time.
    CrlUnusable,
    /// The client offers no version, cipher or protocol that is spoken here.
    Incompatible,
    /// What the client sends is not TLS.
    NotTls,
    /// Another failure.
    Other,
    /// The handshake took too long.
    Timeout,
}

impl HandshakeFailure {
    /// The word for it in the log, which is the metric's too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateInvalid => "certificate_invalid",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateRevoked => "certificate_revoked",
            Self::CertificateUnknownAuthority => "certificate_unknown_authority",
            Self::ClientAlert => "client_alert",
            Self::Closed => "closed",
            Self::CrlUnusable => "crl_unusable",
            Self::Incompatible => "incompatible",
            Self::NotTls => "not_tls",
            Self::Other => "other",
            Self::Timeout => "timeout",
        }
    }

    /// What is counted.
    pub(super) fn event(self) -> Event {
        match self {
            Self::CertificateExpired => Event::TlsCertificateExpired,
            Self::CertificateInvalid => Event::TlsCertificateInvalid,
            Self::CertificateMissing => Event::TlsCertificateMissing,
            Self::CertificateNotYetValid => Event::TlsCertificateNotYetValid,
            Self::CertificateRevoked => Event::TlsCertificateRevoked,
            Self::CertificateUnknownAuthority => Event::TlsCertificateUnknownAuthority,
            Self::ClientAlert => Event::TlsClientAlert,
            Self::Closed => Event::TlsClosed,
            Self::CrlUnusable => Event::TlsCrlUnusable,
            Self::Incompatible => Event::TlsIncompatible,
            Self::NotTls => Event::TlsNotTls,
            Self::Other => Event::TlsOther,
            Self::Timeout => Event::TlsTimeout,
        }
    }

    /// Whether a client's certificate was refused: somebody who may be known here is kept out.
    pub(super) fn is_refused_certificate(self) -> bool {
        matches!(
            self,
            Self::CertificateExpired
                | Self::CertificateInvalid
                | Self::CertificateMissing
                | Self::CertificateNotYetValid
                | Self::CertificateRevoked
                | Self::CertificateUnknownAuthority
                | Self::CrlUnusable
        )
    }

    fn of(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(TlsError::NoCertificatesPresented) => Self::CertificateMissing,
            Some(TlsError::InvalidCertificate(why)) => Self::of_certificate(why),
            Some(TlsError::AlertReceived(_)) => Self::ClientAlert,
            Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => {
                Self::Incompatible
            }
            Some(TlsError::InvalidMessage(_)) => Self::NotTls,
            Some(_) => Self::Other,
            None => match error.kind() {
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof => Self::Closed,
                _ => Self::Other,
            },
        }
    }

    fn of_certificate(why: &CertificateError) -> Self {
        match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::CertificateNotYetValid
            }
            CertificateError::Revoked => Self::CertificateRevoked,
            CertificateError::UnknownIssuer => Self::CertificateUnknownAuthority,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::CrlUnusable,
            _ => Self::CertificateInvalid,
        }
    }
}

/// A handshake with a client, which must be done within `limit`. A client whose handshake fails gets
/// the alert that says why, and then its connection ends.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    socket: TcpStream,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, FailedHandshake> {
    let failed = match timeout(limit, acceptor.accept(socket).into_fallible()).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err((error, socket))) => (HandshakeFailure::of(&error), error.to_string(), socket),
        Err(_) => {
            return Err(FailedHandshake {
                failure: HandshakeFailure::Timeout,
                error: format!("no handshake within {limit:?}"),
                socket: None,
            });
        }
    };
    let (failure, error, socket) = failed;
    Err(FailedHandshake {
        failure,
        error,
        socket: Some(socket),
    })
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct FailedHandshake {
    /// Why, in one word.
    pub failure: HandshakeFailure,
    /// Why, in the library's words.
    pub error: String,
    socket: Option<TcpStream>,
}

impl FailedHandshake {
    /// Ends the connection so that the client can read the alert, which has been sent.
    pub(super) async fn close(self) {
        let Some(mut socket) = self.socket else {
            return;
        };
        let farewell = async {
            socket.shutdown().await?;
            let mut bytes = [0; 4096];
            let mut left = LINGER_BYTES;
            while left > 0 {
                match socket.read(&mut bytes).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(LINGER, farewell).await; // whatever it says, the connection ends here
    }
}
