//! Reads the header by which a trusted proxy says whose connection it passes on.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, timeout};

use crate::downstream::proxy_header::{self, Progress, ProxyHeader};

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFailure {
    /// The proxy went away before it had sent a byte, as one does that looks whether a port is open.
    Silent,
    /// The reason in one word.
    Refused(&'static str),
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
                Err(error) => return Err(HeaderFailure::Refused(error.as_str())),
            };
            let most = u64::try_from(more).unwrap_or(u64::MAX);
            let read = (&mut *stream).take(most).read_buf(&mut bytes).await;
            match read {
                Ok(0) if bytes.is_empty() => return Err(HeaderFailure::Silent),
                Ok(0) => return Err(HeaderFailure::Refused("closed")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(if bytes.is_empty() {
                        HeaderFailure::Silent
                    } else {
                        HeaderFailure::Refused("closed")
                    });
                }
                Err(_) => return Err(HeaderFailure::Refused("failed")),
            }
        }
    };
    timeout(limit, header)
        .await
        .unwrap_or(Err(HeaderFailure::Refused("timeout")))
}
