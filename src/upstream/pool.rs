//! Connections to COS: one pool a core, HTTP/1.1, last used first.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

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
use crate::transport::{CoreLoad, Counted, Gauge};
use crate::upstream::dial::{DialError, Dialer};
use crate::upstream::response_guard::{Answers, Expected};

/// How often idle connections are looked over.
const SWEEP: Duration = Duration::from_secs(5);

/// One core's connections to COS.
#[derive(Debug)]
pub struct Upstream {
    dialer: Dialer,
    limits: UpstreamLimits,
    idle: RefCell<HashMap<Box<str>, VecDeque<Idle>>>,
    load: Rc<CoreLoad>,
    metrics: Arc<CoreMetrics>,
}

/// A connection that waits for its next request.
#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection, and the task that drives it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<body::Request>,
    gauge: Rc<Gauge>,
    expected: Rc<Expected>,
    task: AbortHandle,
}

/// A connection lent to one request. Released when the answer has been read to its end; dropped
/// before that, the connection is cut: what is still on it belongs to nobody.
#[derive(Debug)]
pub struct Lease {
    connection: Option<Connection>,
    authority: Box<str>,
    upstream: Rc<Upstream>,
    upload: Option<Rc<RefCell<body::Upload>>>,
    gauge: Rc<Gauge>,
}

/// A request that got no answer.
#[derive(Debug)]
pub enum SendFailure {
    /// The connection broke before the answer's head.
    Broken(hyper::Error),
    /// No connection could be made: nothing was sent.
    Connect(DialError),
    /// The answer's head can be read in two ways: this is wrong with it.
    Framing(&'static str),
    /// The answer's head did not come in time.
    Timeout,
    /// A new connection was closed before anything could be sent on it.
    Unsent,
}

impl Upstream {
    /// A pool that dials with `dialer`. Must be made within the core's `LocalSet`.
    pub fn new(
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

    /// Sends `request` to `authority` and waits for the head of the answer.
    ///
    /// A pooled connection that turns out to be closed before the request was written is replaced
    /// silently: nothing of the request was sent on it. Any other failure is the caller's to judge.
    pub async fn send(
        self: &Rc<Self>,
        authority: &str,
        mut request: http::Request<body::Request>,
        body: &body::Request,
    ) -> Result<(http::Response<Incoming>, Box<Lease>), SendFailure> {
        loop {
            let (mut connection, reused) = match self.take_idle(authority) {
                Some(connection) => (connection, true),
                // Boxed, as are the other rare waits: each would make every request's future larger.
                None => (Box::pin(self.connect(authority)).await?, false),
            };
            body.goes_to(&connection.gauge);
            let mut lease = Box::new(Lease {
                authority: authority.into(),
                upstream: Rc::clone(self),
                upload: body.upload(),
                gauge: Rc::clone(&connection.gauge),
                connection: None,
            });
            connection.expected.expect();
            let sent = {
                let answer = pin!(connection.sender.try_send_request(request));
                self.await_head(answer, body, &connection.gauge).await
            };
            let fault = connection.expected.fault();
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

    /// Waits for the head: `head_timeout` counted from the last byte of the request that the
    /// connection took. While a body is on its way, its own pace is the limit.
    async fn await_head(
        &self,
        mut answer: Pin<
            &mut impl Future<
                Output = Result<
                    http::Response<Incoming>,
                    TrySendError<http::Request<body::Request>>,
                >,
            >,
        >,
        body: &body::Request,
        gauge: &Gauge,
    ) -> Result<http::Response<Incoming>, AwaitFailure> {
        let begun = Instant::now();
        let mut end = begun + self.limits.head_timeout;
        loop {
            tokio::select! {
                biased;
                result = &mut answer => {
                    return result.map_err(|mut error| match error.take_message() {
                        Some(request) => AwaitFailure::Unsent(Box::new(request)),
                        None => AwaitFailure::Broken(error.into_error()),
                    });
                }
                () = sleep_until(end) => {
                    let now = Instant::now();
                    // A body that is not sent yet has its last byte still to come.
                    let last = if body.is_sent() { gauge.last_write().max(begun) } else { now };
                    end = last + self.limits.head_timeout;
                    if end <= now {
                        return Err(AwaitFailure::Timeout);
                    }
                }
            }
        }
    }

    /// The connection used last among the idle ones that are still good.
    fn take_idle(&self, authority: &str) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let queue = idle.get_mut(authority)?;
        let now = Instant::now();
        let is_good =
            |i: &Idle| i.connection.sender.is_ready() && now - i.since < self.limits.idle_timeout;
        let newest = queue.iter().rposition(is_good)?;
        self.metrics.count(Event::UpstreamReused);
        queue.remove(newest).map(|i| i.connection)
    }

    async fn connect(&self, authority: &str) -> Result<Connection, SendFailure> {
        let stream = self
            .dialer
            .dial(authority)
            .await
            .map_err(SendFailure::Connect)?;
        if descriptors::is_reserved(stream.tcp(), Holder::Upstream) {
            let error = io::Error::other("too few file descriptors; raise the limit (ulimit -n)");
            return Err(SendFailure::Connect(DialError::Connect(error)));
        }
        let gauge = Gauge::new(&self.load);
        let counted = Counted::new(stream, Rc::clone(&gauge)).hear_out();
        let expected = Rc::new(Expected::default());
        let io = TokioIo::new(Answers::new(counted, Rc::clone(&expected)));
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
        Ok(Connection {
            sender,
            gauge,
            expected,
            task: task.abort_handle(),
        })
    }

    fn put_idle(&self, authority: Box<str>, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let queue = idle.entry(authority).or_default();
        if queue.len() < self.limits.idle_connections {
            queue.push_back(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, queue| {
            queue.retain(|i| {
                now - i.since < self.limits.idle_timeout && !i.connection.sender.is_closed()
            });
            !queue.is_empty()
        });
    }
}

/// Why [`Upstream::await_head`] gave no head.
enum AwaitFailure {
    Broken(hyper::Error),
    Timeout,
    Unsent(Box<http::Request<body::Request>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl body::Lease for Lease {
    fn gauge(&self) -> &Rc<Gauge> {
        &self.gauge
    }

    /// One whose answer came before the request's body was sent is closed: the rest of that body would
    /// be read as the next client's request. So is one that has not taken all of it yet.
    fn release(mut self: Box<Self>) {
        if let Some(connection) = self.connection.take()
            && self
                .upload
                .as_ref()
                .is_none_or(|upload| upload.borrow().is_sent())
            && !connection.gauge.is_blocked()
            && !connection.sender.is_closed()
        {
            self.upstream
                .put_idle(std::mem::take(&mut self.authority), connection);
        }
    }
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => {
                write!(f, "COS's connection broke before it answered: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::Connect(error) => write!(f, "no connection to COS: {error}"),
            Self::Framing(fault) => write!(f, "COS's answer can be read in two ways: {fault}"),
            Self::Timeout => f.write_str("COS did not answer in time"),
            Self::Unsent => f.write_str("COS closed a new connection at once"),
        }
    }
}

impl std::error::Error for SendFailure {}
