//! PROXY protocol reader: reads the header in which a trusted proxy names its client.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, timeout};

use crate::downstream::proxy_header::{self, Progress, ProxyHeader, ProxyHeaderError};
use crate::observe::Event;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFailure {
    /// The proxy went away before it had sent a byte, as one does that looks whether a port is open.
    Silent,
    /// It cannot be used.
    Refused(RefusedHeader),
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedHeader {
    /// The proxy went away within it.
    Closed,
    /// The socket failed.
    Failed,
    /// It is none.
    Invalid(ProxyHeaderError),
    /// It did not arrive in time.
    Timeout,
}

impl RefusedHeader {
    /// The word for it in the log, which is the metric's too.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Invalid(error) => error.as_str(),
            Self::Timeout => "timeout",
        }
    }

    /// What is counted.
    pub(crate) fn event(self) -> Event {
        match self {
            Self::Closed => Event::ProxyHeaderClosed,
            Self::Failed => Event::ProxyHeaderFailed,
            Self::Invalid(ProxyHeaderError::Address) => Event::ProxyHeaderAddress,
            Self::Invalid(ProxyHeaderError::Checksum) => Event::ProxyHeaderChecksum,
            Self::Invalid(ProxyHeaderError::Command) => Event::ProxyHeaderCommand,
            Self::Invalid(ProxyHeaderError::Malformed) => Event::ProxyHeaderMalformed,
            Self::Invalid(ProxyHeaderError::Missing) => Event::ProxyHeaderMissing,
            Self::Invalid(ProxyHeaderError::TooLong) => Event::ProxyHeaderTooLong,
            Self::Timeout => Event::ProxyHeaderTimeout,
        }
    }
}

/// Reads the header off `stream`, and no byte behind it, within `limit`.
pub(crate) async fn read<S>(stream: &mut S, limit: Duration) -> Result<ProxyHeader, HeaderFailure>
where
    S: AsyncRead + Unpin,
{
    let header = async {
        let mut bytes = Vec::with_capacity(proxy_header::V1_BYTES);
        loop {
            let more = match proxy_header::read(&bytes) {
                Ok(Progress::Done(header)) => return Ok(header),
                Ok(Progress::More(more)) => more,
                Err(error) => {
                    return Err(HeaderFailure::Refused(RefusedHeader::Invalid(error)));
                }
            };
            let max = u64::try_from(more).unwrap_or(u64::MAX);
            let read = (&mut *stream).take(max).read_buf(&mut bytes).await;
            match read {
                Ok(0) if bytes.is_empty() => return Err(HeaderFailure::Silent),
                Ok(0) => return Err(HeaderFailure::Refused(RefusedHeader::Closed)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(if bytes.is_empty() {
                        HeaderFailure::Silent
                    } else {
                        HeaderFailure::Refused(RefusedHeader::Closed)
                    });
                }
                Err(_) => return Err(HeaderFailure::Refused(RefusedHeader::Failed)),
            }
        }
    };
    timeout(limit, header)
        .await
        .unwrap_or(Err(HeaderFailure::Refused(RefusedHeader::Timeout)))
}
