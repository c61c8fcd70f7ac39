//! The HTTP client of a worker thread: pooled connections, HTTP/1.1 or HTTP/2, and a time limit for every wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::content::ContentComparison;
use super::stats::{NO_CONNECTION, OperationFailure};
use super::upload::UploadBody;
use crate::s3::xml::UpstreamError;
use crate::upstream::dial::{Dialer, Roots, Stream};

/// Maximum size of a document in bytes: a page of a listing is the largest.
const DOCUMENT_LIMIT: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection; servers allow 100 and more (RFC 9113 section 6.5.2).
const STREAMS: usize = 64;

/// A client for one side. Each thread has its own.
#[derive(Debug)]
pub(super) struct LoadClient {
    dialer: Dialer,
    timeout: Duration,
    keep_alive: bool,
    is_http2: bool,
    idle: RefCell<VecDeque<Idle>>,
    multiplexed: RefCell<Vec<Multiplexed>>,
    dialled: Cell<u64>,
}

#[derive(Debug)]
struct Idle {
    host: String,
    sender: http1::SendRequest<UploadBody>,
}

#[derive(Debug)]
struct Multiplexed {
    host: String,
    sender: http2::SendRequest<UploadBody>,
    streams: std::rc::Rc<Cell<usize>>,
}

/// The way in which a client connects.
#[derive(Clone, Debug)]
pub(super) struct Connect {
    /// The trusted certificates; `None` for plain HTTP.
    pub(super) roots: Option<Roots>,
    /// The address to dial in place of the host.
    pub(super) dialled: Option<String>,
    /// The time limit of one request, from dialling to the last byte.
    pub(super) timeout: Duration,
    /// Whether connections are used again.
    pub(super) keep_alive: bool,
    /// Whether HTTP/2 is used.
    pub(super) is_http2: bool,
}

/// A response whose body was read whole.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
}

/// The outcome of a download.
#[derive(Clone, Debug)]
pub(super) struct DownloadResult {
    /// Bytes of the body.
    pub(super) length: u64,
    /// Whether every byte was as written.
    pub(super) is_whole: bool,
}

impl LoadClient {
    /// A client without connections.
    pub(super) fn new(connect: &Connect) -> Self {
        let roots = connect.roots.as_ref();
        let roots =
            roots.map(|roots| roots.speaking(if connect.is_http2 { b"h2" } else { b"http/1.1" }));
        Self {
            dialer: Dialer::new(
                roots.as_ref(),
                connect.dialled.clone(),
                CONNECT_TIMEOUT,
                CONNECT_TIMEOUT,
            ),
            timeout: connect.timeout,
            keep_alive: connect.keep_alive,
            is_http2: connect.is_http2,
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            dialled: Cell::new(0),
        }
    }

    /// The number of connections that were made.
    pub(super) fn dialled(&self) -> u64 {
        self.dialled.get()
    }

    /// Sends a request and reads the response, which must be a success.
    pub(super) async fn call(
        &self,
        host: &str,
        request: Request<UploadBody>,
    ) -> Result<Reply, OperationFailure> {
        self.limited(async {
            let (response, connection) = self.send(host, request).await?;
            let (head, body) = response.into_parts();
            let body = gather(body).await?;
            self.give_back(connection);
            if head.status.is_success() {
                Ok(Reply {
                    headers: head.headers,
                    body,
                })
            } else {
                Err(refused(head.status, &body))
            }
        })
        .await
    }

    /// Sends a request and compares the body of the response with the expected bytes.
    pub(super) async fn download(
        &self,
        host: &str,
        request: Request<UploadBody>,
        mut comparison: Option<ContentComparison>,
    ) -> Result<DownloadResult, OperationFailure> {
        self.limited(async {
            let (response, connection) = self.send(host, request).await?;
            let (head, mut body) = response.into_parts();
            if !head.status.is_success() {
                let body = gather(body).await?;
                self.give_back(connection);
                return Err(refused(head.status, &body));
            }
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broken(&error))?;
                if let Some(data) = frame.data_ref() {
                    length += data.len() as u64;
                    if let Some(comparison) = &mut comparison {
                        comparison.update(data);
                    }
                }
            }
            self.give_back(connection);
            Ok(DownloadResult {
                length,
                is_whole: comparison.is_none_or(|comparison| comparison.is_whole()),
            })
        })
        .await
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, OperationFailure>>,
    ) -> Result<T, OperationFailure> {
        match timeout(self.timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(silent("timeout")),
        }
    }

    async fn send(
        &self,
        host: &str,
        mut request: Request<UploadBody>,
    ) -> Result<(Response<Incoming>, Lease), OperationFailure> {
        if self.is_http2 {
            return self.send_multiplexed(host, request).await;
        }
        loop {
            let (mut connection, is_new) = match self.take_idle(host) {
                Some(idle) => (idle, false),
                None => (self.connect(host).await?, true),
            };
            if connection.sender.ready().await.is_err() && !is_new {
                continue; // the server closed the idle connection
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease::Connection(connection))),
                Err(mut error) => match error.take_message() {
                    // Nothing of the request was sent: the server has just closed the idle connection.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(broken(error.error())),
                },
            }
        }
    }

    async fn send_multiplexed(
        &self,
        host: &str,
        request: Request<UploadBody>,
    ) -> Result<(Response<Incoming>, Lease), OperationFailure> {
        let (mut sender, place) = self.stream(host).await?;
        sender.ready().await.map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await;
        Ok((
            response.map_err(|error| broken(&error))?,
            Lease::Stream(place),
        ))
    }

    fn take_idle(&self, host: &str) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        // The connection used last is the least likely to be closed.
        let at = idle.iter().rposition(|idle| idle.host == host)?;
        idle.remove(at)
    }

    /// When the whole response has arrived, the connection is free for another request.
    fn give_back(&self, lease: Lease) {
        if let Lease::Connection(connection) = lease
            && self.keep_alive
            && !connection.sender.is_closed()
        {
            self.idle.borrow_mut().push_back(connection);
        }
    }

    async fn connect(&self, host: &str) -> Result<Idle, OperationFailure> {
        let stream = self.dial(host).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::task::spawn_local(async move {
            // The request that uses the connection gets the error.
            let _ = connection.await;
        });
        Ok(Idle {
            host: host.to_owned(),
            sender,
        })
    }

    /// A free stream of a connection.
    async fn stream(
        &self,
        host: &str,
    ) -> Result<(http2::SendRequest<UploadBody>, StreamPlace), OperationFailure> {
        {
            let mut open = self.multiplexed.borrow_mut();
            open.retain(|connection| !connection.sender.is_closed());
            let mut open = open.iter();
            if let Some(found) = open.find(|open| open.host == host && open.streams.get() < STREAMS)
            {
                return Ok((found.sender.clone(), StreamPlace::new(&found.streams)));
            }
        }
        let stream = self.dial(host).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let streams = std::rc::Rc::new(Cell::new(0));
        let place = StreamPlace::new(&streams);
        self.multiplexed.borrow_mut().push(Multiplexed {
            host: host.to_owned(),
            sender: sender.clone(),
            streams,
        });
        Ok((sender, place))
    }

    async fn dial(&self, host: &str) -> Result<Stream, OperationFailure> {
        self.dialled.set(self.dialled.get() + 1);
        let dialled = self.dialer.dial(host).await;
        let stream =
            dialled.map_err(|error| silent(&format!("{NO_CONNECTION}{}", short(&error))))?;
        if let Stream::Tls(tls) = &stream
            && self.is_http2
            && tls.get_ref().1.alpn_protocol() != Some(b"h2")
        {
            return Err(silent("the server does not speak HTTP/2"));
        }
        Ok(stream)
    }
}

/// The connection or stream that a request uses.
#[derive(Debug)]
enum Lease {
    /// An HTTP/1.1 connection.
    Connection(Idle),
    /// A stream of an HTTP/2 connection.
    Stream(#[expect(dead_code, reason = "it counts until it is dropped")] StreamPlace),
}

/// One stream of a connection, in use until it is dropped.
#[derive(Debug)]
struct StreamPlace(std::rc::Rc<Cell<usize>>);

impl StreamPlace {
    fn new(streams: &std::rc::Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(std::rc::Rc::clone(streams))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn gather(mut body: Incoming) -> Result<Bytes, OperationFailure> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > DOCUMENT_LIMIT {
                return Err(silent("a document of more than 8 MiB"));
            }
            all.extend_from_slice(data);
        }
    }
    Ok(all.freeze())
}

fn refused(status: StatusCode, body: &[u8]) -> OperationFailure {
    let error = UpstreamError::parse(body, DOCUMENT_LIMIT).ok();
    let code = error.map(|error| error.code).filter(|code| {
        code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    });
    OperationFailure {
        label: match code {
            Some(code) => format!("{} {code}", status.as_u16()),
            None => status.as_u16().to_string(),
        },
        is_response: true,
    }
}

fn broken(error: &hyper::Error) -> OperationFailure {
    let label = if error.is_incomplete_message() {
        "connection closed before the response"
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_parse() {
        "not HTTP"
    } else if error.is_body_write_aborted() || error.is_canceled() {
        "connection closed while sending"
    } else {
        "connection broken"
    };
    silent(label)
}

/// A failure without a response.
pub(super) fn silent(label: &str) -> OperationFailure {
    OperationFailure {
        label: label.to_owned(),
        is_response: false,
    }
}

/// The kind of an error, without addresses: they would make each error different.
fn short(error: &crate::upstream::dial::DialError) -> String {
    use crate::upstream::dial::DialError;
    match error {
        DialError::Connect(error) => error.kind().to_string(),
        DialError::ConnectTimeout(_) | DialError::TlsTimeout(_) => "timeout".to_owned(),
        DialError::Resolve(_) => "name not found".to_owned(),
        DialError::Tls(_) => "TLS handshake failed".to_owned(),
        _ => "failed".to_owned(),
    }
}
