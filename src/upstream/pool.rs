//! Connection pool for COS: HTTP/1.1, one pool for each core. The connection used last is used first.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::body;
use crate::config::UpstreamLimits;
use crate::observe::{CoreMetrics, Event};
use crate::transport::descriptors::{self, Holder};
use crate::transport::inspected::InspectedStream;
use crate::transport::{CoreLoad, CountedStream, StreamState};
use crate::upstream::dial::{DialError, Dialer};
use crate::upstream::response_guard::{HeadFault, RequestKind, ResponseExpectation, ResponseGuard};

/// How often expired idle connections are closed.
const SWEEP: Duration = Duration::from_secs(5);

/// One core's connections to COS.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    dialer: Dialer,
    limits: UpstreamLimits,
    idle: RefCell<HashMap<Box<str>, Rc<IdleQueue>>>,
    load: Rc<CoreLoad>,
    metrics: Arc<CoreMetrics>,
}

/// The idle connections to one authority. A leased connection holds its queue, so that its return needs no lookup.
type IdleQueue = RefCell<VecDeque<IdleConnection>>;

/// A connection that waits for its next request.
#[derive(Debug)]
struct IdleConnection {
    connection: PooledConnection,
    since: Instant,
}

impl IdleConnection {
    fn is_fresh(&self, now: Instant, limit: Duration) -> bool {
        now - self.since < limit
    }
}

/// A connection, and the task that drives it.
#[derive(Debug)]
struct PooledConnection {
    sender: SendRequest<body::RequestBody>,
    stream_state: Rc<StreamState>,
    expectation: Rc<ResponseExpectation>,
    task: AbortHandle,
    metrics: Arc<CoreMetrics>,
}

/// A connection that one request uses. It is released when the response has been read to its end. Dropped
/// earlier, the connection is closed, because the rest of the response belongs to nobody.
#[derive(Debug)]
pub(crate) struct LeasedConnection {
    connection: Option<PooledConnection>,
    idle: Rc<IdleQueue>,
    upstream: Rc<ConnectionPool>,
    upload: Option<Rc<RefCell<body::ObjectUpload>>>,
    stream_state: Rc<StreamState>,
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The connection broke before the head of the response.
    Broken(hyper::Error),
    /// No connection could be made: nothing was sent.
    Connect(DialError),
    /// The response guard refused the head of the response.
    Framing(HeadFault),
    /// The head of the response did not arrive in time.
    Timeout,
    /// A new connection was closed before anything could be sent on it.
    Unsent,
}

impl ConnectionPool {
    /// A pool that dials with `dialer`. Must be made within the core's `LocalSet`.
    pub(crate) fn new(
        dialer: Dialer,
        limits: UpstreamLimits,
        load: Rc<CoreLoad>,
        metrics: Arc<CoreMetrics>,
    ) -> Rc<Self> {
        let this = Rc::new(Self {
            dialer,
            limits,
            idle: RefCell::default(),
            load,
            metrics,
        });
        let weak = Rc::downgrade(&this);
        tokio::task::spawn_local(async move {
            loop {
                sleep(SWEEP).await;
                let Some(pool) = weak.upgrade() else { return };
                pool.sweep();
            }
        });
        this
    }

    /// Sends `request` to `authority` and waits for the head of the response.
    ///
    /// If a pooled connection is found closed before the request was written, another is used: nothing of
    /// the request was sent. The caller decides about any other failure.
    pub(crate) async fn send(
        self: &Rc<Self>,
        authority: &str,
        mut request: http::Request<body::RequestBody>,
        body: &body::RequestBody,
    ) -> Result<(http::Response<Incoming>, Box<LeasedConnection>), SendFailure> {
        let idle = self.idle_queue(authority);
        loop {
            let now = Instant::now();
            let idle_connection = self.take_idle(&idle, now);
            let reused = idle_connection.is_some();
            let (mut connection, begun) = if let Some(connection) = idle_connection {
                (connection, now)
            } else {
                // Boxed, as are the other rare waits: each would make every request's future larger.
                let connection = Box::pin(self.connect(authority)).await?;
                (connection, Instant::now())
            };
            body.goes_to(&connection.stream_state);
            let mut lease = Box::new(LeasedConnection {
                idle: Rc::clone(&idle),
                upstream: Rc::clone(self),
                upload: body.upload(),
                stream_state: Rc::clone(&connection.stream_state),
                connection: None,
            });
            let kind = match *request.method() {
                Method::HEAD => RequestKind::Head,
                _ => RequestKind::Other,
            };
            connection.expectation.expect(kind);
            let sent = {
                let response = pin!(connection.sender.try_send_request(request));
                self.await_head(response, body, &connection.stream_state, begun)
                    .await
            };
            let fault = connection.expectation.fault();
            lease.connection = Some(connection);
            match sent {
                Ok(response) => return Ok((response, lease)),
                Err(AwaitFailure::Timeout) => return Err(SendFailure::Timeout),
                Err(AwaitFailure::Unsent(returned)) if reused => request = *returned,
                Err(AwaitFailure::Unsent(_)) => return Err(SendFailure::Unsent),
                Err(AwaitFailure::Broken(error)) => {
                    return Err(fault.map_or(SendFailure::Broken(error), SendFailure::Framing));
                }
            }
        }
    }

    /// Waits for the head until `head_timeout` after the connection took the last byte of the request, which it
    /// began to take at `begun`. While a body is being sent, its pace is the limit.
    async fn await_head(
        &self,
        mut response: Pin<
            &mut impl Future<
                Output = Result<
                    http::Response<Incoming>,
                    TrySendError<http::Request<body::RequestBody>>,
                >,
            >,
        >,
        body: &body::RequestBody,
        stream_state: &StreamState,
        begun: Instant,
    ) -> Result<http::Response<Incoming>, AwaitFailure> {
        let mut end = begun + self.limits.head_timeout;
        loop {
            tokio::select! {
                biased;
                result = &mut response => {
                    return result.map_err(|mut error| match error.take_message() {
                        Some(request) => AwaitFailure::Unsent(Box::new(request)),
                        None => AwaitFailure::Broken(error.into_error()),
                    });
                }
                () = sleep_until(end) => {
                    let now = Instant::now();
                    // Before a body is sent, its last byte is still to come.
                    let last = if body.is_sent() { stream_state.last_write().max(begun) } else { now };
                    end = last + self.limits.head_timeout;
                    if end <= now {
                        return Err(AwaitFailure::Timeout);
                    }
                }
            }
        }
    }

    /// The queue of `authority`.
    fn idle_queue(&self, authority: &str) -> Rc<IdleQueue> {
        let mut queues = self.idle.borrow_mut();
        if let Some(queue) = queues.get(authority) {
            return Rc::clone(queue);
        }
        Rc::clone(queues.entry(authority.into()).or_default())
    }

    /// The usable connection of `idle` that was used last.
    fn take_idle(&self, idle: &IdleQueue, now: Instant) -> Option<PooledConnection> {
        let mut queue = idle.borrow_mut();
        let limit = self.limits.idle_timeout;
        let is_good =
            |idle: &IdleConnection| idle.is_fresh(now, limit) && idle.connection.sender.is_ready();
        let newest = queue.iter().rposition(is_good)?;
        self.metrics.count(Event::UpstreamReused);
        queue.remove(newest).map(|i| i.connection)
    }

    async fn connect(&self, authority: &str) -> Result<PooledConnection, SendFailure> {
        let stream = self
            .dialer
            .dial(authority)
            .await
            .map_err(SendFailure::Connect)?;
        if descriptors::is_reserved(stream.tcp(), Holder::Upstream) {
            let error = io::Error::other("too few file descriptors; raise the limit (ulimit -n)");
            return Err(SendFailure::Connect(DialError::Connect(error)));
        }
        let stream_state = StreamState::new(&self.load);
        let counted = CountedStream::new(stream, Rc::clone(&stream_state)).read_after_write_error();
        let expectation = Rc::new(ResponseExpectation::default());
        let guard = ResponseGuard::new(Rc::clone(&expectation));
        let io = TokioIo::new(InspectedStream::new(counted, guard));
        let (mut sender, driver) = http1::Builder::new()
            .handshake(io)
            .await
            .map_err(|_| SendFailure::Unsent)?;
        let task = tokio::task::spawn_local(async move {
            // The request's own future gets the error.
            let _ = driver.await;
        });
        sender.ready().await.map_err(|_| SendFailure::Unsent)?;
        self.metrics.count(Event::UpstreamOpened);
        Ok(PooledConnection {
            sender,
            stream_state,
            expectation,
            task: task.abort_handle(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    fn put_idle(&self, idle: &IdleQueue, connection: PooledConnection) {
        let mut queue = idle.borrow_mut();
        if queue.len() < self.limits.idle_connections {
            queue.push_back(IdleConnection {
                connection,
                since: Instant::now(),
            });
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, queue| {
            let mut idle = queue.borrow_mut();
            idle.retain(|idle| {
                idle.is_fresh(now, self.limits.idle_timeout) && !idle.connection.sender.is_closed()
            });
            !idle.is_empty() || Rc::strong_count(queue) > 1
        });
    }
}

/// Why [`ConnectionPool::await_head`] gave no head.
enum AwaitFailure {
    Broken(hyper::Error),
    Timeout,
    Unsent(Box<http::Request<body::RequestBody>>),
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.task.abort();
        self.metrics.count(Event::UpstreamClosed);
    }
}

impl body::ResponseConnection for LeasedConnection {
    fn stream_state(&self) -> &Rc<StreamState> {
        &self.stream_state
    }

    /// Closes the connection if the response came before the whole request body was sent and taken: the
    /// rest of the body would be read as the next request.
    fn release(mut self: Box<Self>) {
        if let Some(connection) = self.connection.take()
            && self
                .upload
                .as_ref()
                .is_none_or(|upload| upload.borrow().is_sent())
            && !connection.stream_state.is_blocked()
            && !connection.sender.is_closed()
        {
            self.upstream.put_idle(&self.idle, connection);
        }
    }
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => {
                write!(f, "COS's connection broke before it responded: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::Connect(error) => write!(f, "no connection to COS: {error}"),
            Self::Framing(fault) => write!(f, "COS's response can be read in two ways: {fault}"),
            Self::Timeout => f.write_str("COS did not respond in time"),
            Self::Unsent => f.write_str("COS closed a new connection at once"),
        }
    }
}

impl std::error::Error for SendFailure {}
