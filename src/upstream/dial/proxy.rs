//! HTTP proxy that a connection may go through, with a tunnel (`CONNECT`).

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::{DialError, HostPort};
use crate::encoding::percent::percent_decode;
use crate::secret::Secret;

/// Bytes of a proxy's response at most.
const PROXY_HEAD_BYTES: usize = 8 * 1024;

/// An HTTP proxy that opens tunnels.
#[derive(Clone, Debug)]
pub struct HttpProxy {
    pub(super) address: HostPort,
    /// `Basic …`
    authorization: Option<Secret>,
}

impl HttpProxy {
    /// Reads `http://[user:password@]host[:port]`; the port is 80 where none is written.
    pub fn parse(text: &str) -> Result<Self, DialError> {
        // The text is not repeated: it may hold a password.
        let wrong = || DialError::Authority("the proxy".to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let address = HostPort::parse(address, 80).map_err(|_| wrong())?;
        let authorization = user.map(|user| {
            let user = percent_decode(user).ok_or_else(wrong)?;
            Ok(Secret::new(format!(
                "Basic {}",
                BASE64_STANDARD.encode(user)
            )))
        });
        Ok(Self {
            address,
            authorization: authorization.transpose()?,
        })
    }

    /// Requests a tunnel to `to`. What follows the response's head is the other side's.
    pub(super) async fn open(&self, tcp: &mut TcpStream, to: &HostPort) -> io::Result<()> {
        let host = if to.host.contains(':') {
            format!("[{}]:{}", to.host, to.port)
        } else {
            format!("{}:{}", to.host, to.port)
        };
        let mut head = Zeroizing::new(format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n"));
        if let Some(authorization) = &self.authorization {
            head.push_str("proxy-authorization: ");
            head.push_str(authorization.expose());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        tcp.write_all(head.as_bytes()).await?;
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            if response.len() == PROXY_HEAD_BYTES {
                return Err(io::Error::other("its response is too long"));
            }
            response.push(tcp.read_u8().await?); // no byte of the tunnel's may be taken
        }
        let status = response.split(|byte| *byte == b' ').nth(1);
        let status = status.unwrap_or_default();
        if response.starts_with(b"HTTP/1.") && status.len() == 3 && status.starts_with(b"2") {
            return Ok(());
        }
        let status: String = status.escape_ascii().take(16).map(char::from).collect();
        Err(io::Error::other(format!(
            "it opens no tunnel to {host}: status {status}"
        )))
    }
}
