//! One-shot HTTP client: one HTTP/1.1 request on a connection of its own, for what is called seldom.
//! STS, the metadata service and the key sets of identity providers are.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::timestamp::Timestamp;
use crate::upstream::dial::Dialer;

/// Limit of a response's head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Makes requests to one server. It does not follow redirects: they would move the trust elsewhere.
#[derive(Debug)]
pub(crate) struct OneShotClient {
    authority: String,
    dialer: Dialer,
    /// From the look-up of the name to the last byte of the response.
    timeout: Duration,
    /// Limit of a response's body.
    body_bytes: usize,
}

/// A response that was read to its end. Its body may be a secret.
#[derive(Debug)]
pub(crate) struct OneShotResponse {
    pub(crate) status: StatusCode,
    /// `Date`
    pub(crate) date: Option<Timestamp>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Why there is no response. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OneShotError {
    /// The authority cannot be a `Host` header.
    Authority,
    /// The server was not reached, or the connection broke.
    Network(String),
    /// There was no whole response within this time.
    Timeout(Duration),
    /// The body is longer than this.
    TooLong(usize),
}

impl OneShotClient {
    /// A client of `authority`, which is dialled with `dialer` and is the `Host` of each request.
    pub(crate) fn new(
        authority: &str,
        dialer: Dialer,
        timeout: Duration,
        body_bytes: usize,
    ) -> Self {
        Self {
            authority: authority.to_owned(),
            dialer,
            timeout,
            body_bytes,
        }
    }

    /// `host` or `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends `request`, whose target is a path, and reads the response.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<OneShotResponse, OneShotError> {
        let host = HeaderValue::from_str(&self.authority).map_err(|_| OneShotError::Authority)?;
        request.headers_mut().insert(HOST, host);
        timeout(self.timeout, self.exchange(request))
            .await
            .unwrap_or(Err(OneShotError::Timeout(self.timeout)))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<OneShotResponse, OneShotError> {
        let dialled = self.dialer.dial(&self.authority).await;
        let stream = dialled.map_err(|error| network(&error))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| network(&error))?;
        let mut driver = JoinSet::new(); // ends the connection when this request ends, however it does
        driver.spawn(connection);
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| network(&error))?;
        let date = response.headers().get(DATE);
        let date = date.and_then(|value| Timestamp::parse_http_date(value.to_str().ok()?));
        let (head, body) = response.into_parts();
        Ok(OneShotResponse {
            status: head.status,
            date,
            headers: head.headers,
            body: self.read(body).await?,
        })
    }

    async fn read(&self, body: Incoming) -> Result<Zeroizing<Vec<u8>>, OneShotError> {
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut read = Zeroizing::new(Vec::with_capacity(expected.min(self.body_bytes)));
        let mut limited = Limited::new(body, self.body_bytes);
        while let Some(frame) = limited.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return OneShotError::TooLong(self.body_bytes);
                }
                network(error.as_ref())
            })?;
            read.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
        Ok(read)
    }
}

impl fmt::Display for OneShotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("the host cannot stand in a header"),
            Self::Network(what) => f.write_str(what),
            Self::Timeout(limit) => write!(f, "no response within {limit:?}"),
            Self::TooLong(limit) => write!(f, "the response is longer than {limit} bytes"),
        }
    }
}

impl Error for OneShotError {}

/// An error with its causes in one line: hyper's own text has only the outermost.
fn network(error: &(dyn Error + 'static)) -> OneShotError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    OneShotError::Network(text)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    /// What a client with a limit of 8 bytes makes of a server that sends `response` and then nothing.
    async fn sent(response: &'static str) -> Result<OneShotResponse, OneShotError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let client =
            OneShotClient::new(&authority, Dialer::new(None, None, LIMIT, LIMIT), LIMIT, 8);
        let server = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("get /a?b http/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("host: {authority}\r\n")), "{head}");
            tcp.write_all(response.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let request = Request::get("/a?b").body(Full::default()).unwrap();
        tokio::select! {
            result = client.send(request) => result,
            () = server => unreachable!(),
        }
    }

    #[tokio::test]
    async fn reads_status_date_and_body() {
        let head = "HTTP/1.1 302 Found\r\nlocation: /b\r\ndate: Thu, 15 Jan 2026 12:30:45 GMT\r\n";
        let text: &'static str = format!("{head}content-length: 8\r\n\r\n12345678").leak();
        let response = sent(text).await.unwrap();
        assert_eq!(
            response.status,
            StatusCode::FOUND,
            "redirects are not followed"
        );
        assert_eq!(response.date.unwrap().unix(), 1_768_480_245);
        assert_eq!(response.body.as_slice(), b"12345678");
    }

    #[tokio::test]
    async fn bounds_time_head_and_body() {
        let expected = OneShotError::TooLong(8);
        for response in [
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n",
        ] {
            assert_eq!(sent(response).await.unwrap_err(), expected);
        }
        for response in ["", "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n1234567"] {
            assert_eq!(
                sent(response).await.unwrap_err(),
                OneShotError::Timeout(LIMIT)
            );
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * HEAD_BYTES));
        let error = sent(long.leak()).await.unwrap_err();
        assert!(matches!(error, OneShotError::Network(_)), "{error}");
    }

    #[tokio::test]
    async fn names_the_cause_of_a_failure() {
        let dialer = Dialer::new(None, None, LIMIT, LIMIT);
        let client = OneShotClient::new("127.0.0.1:1", dialer, LIMIT, 8);
        let request = Request::get("/").body(Full::default()).unwrap();
        let error = client.send(request).await.unwrap_err().to_string();
        assert!(
            error.contains("connect: ") && error.contains("refused"),
            "{error}"
        );
    }
}
