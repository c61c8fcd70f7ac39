//! The load: requests as an SDK signs them, over connections that are kept, from one thread.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cosgate::secret::Secret;
use cosgate::sign::{Signable, sigv4};
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::poll::{Poll, Ready};
use super::upstream::{BYTE, content_length, cut, end_of_head, piece_of, read_some};

/// The key of the tenant in `peers/cosgate.toml`.
const ACCESS_KEY: &str = "BENCHKEY000000000001";
const SECRET_KEY: &str = "bench-secret-00000000000000000000000001";
const REGION: &str = "ap-guangzhou";
const HOST: &str = "s3.localhost";
const BLOCK: usize = 256 << 10;
/// Bytes of a body that leave together with the head.
const WITH_HEAD: u64 = 16 << 10;
/// Bytes of a response after which a slow reader reads no more.
const STALL_AFTER: u64 = 64 << 10;
/// Without any progress for so long, a run has failed.
const STUCK: Duration = Duration::from_secs(30);

/// What is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// An object of that length.
    Get(u64),
    /// To store one of that length.
    Put(u64),
    /// An object of that length, of which the client reads only the start.
    StalledGet(u64),
    /// To store one of that length, of which the upstream reads only the start.
    StalledPut(u64),
}

/// When a run ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many requests.
    Requests(u64),
}

/// A load to put on one address.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// Requests a second, or as many as there can be.
    pub(crate) rate: Option<u32>,
    pub(crate) until: Until,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Bytes of bodies, both ways, also of requests that were not over at the end.
    pub(crate) bytes: u64,
    latencies: Vec<Duration>,
    /// Still open, for as long as this is kept.
    _connections: Vec<Connection>,
}

impl Outcome {
    /// The median time of a request, counted from when it should have begun.
    pub(crate) fn median_latency(&mut self) -> Duration {
        self.latencies.sort_unstable();
        let middle = self.latencies.len() / 2;
        self.latencies.get(middle).copied().unwrap_or_default()
    }
}

/// Runs the load. Any status but 200, and any early end, is an error.
pub(crate) fn run(addr: SocketAddr, load: Load) -> io::Result<Outcome> {
    let mut run = Run::new(addr, load)?;
    loop {
        run.begin_due()?;
        if run.is_over() {
            break;
        }
        run.wait_and_advance()?;
    }
    Ok(Outcome {
        requests: run.done,
        bytes: run.connections.iter().map(|one| one.bytes).sum(),
        latencies: run.latencies,
        _connections: run.connections,
    })
}

struct Run {
    load: Load,
    request: Request,
    poll: Poll,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    ready: Vec<usize>,
    scratch: Vec<u8>,
    start: Instant,
    last_progress: Instant,
    begun: u64,
    done: u64,
    latencies: Vec<Duration>,
}

impl Run {
    fn new(addr: SocketAddr, load: Load) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for number in 0..load.connections {
            let connection = Connection::open(addr)?;
            poll.add(&connection.socket, number, Ready::IN)?;
            connections.push(connection);
        }
        Ok(Self {
            load,
            request: Request::new(load.work),
            poll,
            idle: (0..connections.len()).collect(),
            connections,
            ready: Vec::new(),
            scratch: vec![0; BLOCK],
            start: Instant::now(),
            last_progress: Instant::now(),
            begun: 0,
            done: 0,
            latencies: Vec::new(),
        })
    }

    fn is_over(&self) -> bool {
        match self.load.until {
            Until::Elapsed(time) => self.start.elapsed() >= time,
            Until::Requests(count) => self.done >= count,
        }
    }

    /// When the next request should begin.
    fn next_due(&self) -> Instant {
        match self.load.rate {
            Some(rate) => {
                let nanos = self.begun * 1_000_000_000 / u64::from(rate);
                self.start + Duration::from_nanos(nanos)
            }
            None => Instant::now(),
        }
    }

    fn begin_due(&mut self) -> io::Result<()> {
        let limit = match self.load.until {
            Until::Requests(count) => count,
            Until::Elapsed(_) => u64::MAX,
        };
        while self.begun < limit && !self.idle.is_empty() {
            let due = self.next_due();
            if due > Instant::now() {
                break;
            }
            let Some(number) = self.idle.pop_front() else {
                break;
            };
            self.begun += 1;
            self.connections[number].begin(due);
            self.advance(number)?;
        }
        Ok(())
    }

    fn wait_and_advance(&mut self) -> io::Result<()> {
        let mut limit = Duration::from_millis(20);
        if self.load.rate.is_some() && !self.idle.is_empty() {
            limit = limit.min(self.next_due().saturating_duration_since(Instant::now()));
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready.extend(self.poll.wait(limit)?);
        if !ready.is_empty() {
            self.last_progress = Instant::now();
        } else if self.last_progress.elapsed() > STUCK {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for &number in &ready {
            self.advance(number)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn advance(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let wanted = match connection.advance(&self.request, &mut self.scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.waits_for(),
            Ok(()) if matches!(connection.phase, Phase::Idle) => {
                self.latencies.push(connection.began.elapsed());
                self.done += 1;
                self.idle.push_back(number);
                Ready::IN
            }
            Ok(()) => connection.waits_for(),
            Err(error) => return Err(error),
        };
        if wanted != connection.wanted {
            connection.wanted = wanted;
            self.poll.modify(&connection.socket, number, wanted)?;
        }
        Ok(())
    }
}

struct Connection {
    socket: TcpStream,
    head: Vec<u8>,
    phase: Phase,
    began: Instant,
    wanted: Ready,
    bytes: u64,
}

enum Phase {
    Idle,
    Sending { sent: u64 },
    Head,
    Body { left: u64 },
    Stalled,
}

impl Connection {
    fn open(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            head: Vec::new(),
            phase: Phase::Idle,
            began: Instant::now(),
            wanted: Ready::IN,
            bytes: 0,
        })
    }

    fn begin(&mut self, due: Instant) {
        self.began = due;
        self.head.clear();
        self.phase = Phase::Sending { sent: 0 };
    }

    fn waits_for(&self) -> Ready {
        match self.phase {
            Phase::Sending { .. } => Ready::OUT,
            Phase::Stalled => Ready::empty(),
            Phase::Idle | Phase::Head | Phase::Body { .. } => Ready::IN,
        }
    }

    /// Goes on until the request is over, or there is something to wait for.
    fn advance(&mut self, request: &Request, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            match &mut self.phase {
                Phase::Idle => {
                    return Err(read_some(&mut self.socket, scratch).map_or_else(
                        |error| error,
                        |_| io::Error::other("bytes after the response"),
                    ));
                }
                Phase::Stalled => return Ok(()),
                Phase::Sending { sent } => {
                    let piece = request.from(*sent);
                    if piece.is_empty() {
                        // The response is not there yet: reading now would be a system call in vain.
                        self.phase = Phase::Head;
                        return Ok(());
                    }
                    let wrote = self.socket.write(piece)? as u64;
                    *sent += wrote;
                    self.bytes += wrote;
                }
                Phase::Head => {
                    let got = read_some(&mut self.socket, scratch)?;
                    self.head.extend_from_slice(&scratch[..got]);
                    if let Some(end) = end_of_head(&self.head) {
                        self.phase = self.body_after(end)?;
                    }
                }
                Phase::Body { left: 0 } => {
                    self.phase = Phase::Idle;
                    return Ok(());
                }
                Phase::Body { left } => {
                    let room = cut(scratch.len(), *left);
                    let got = self.socket.read(&mut scratch[..room])? as u64;
                    if got == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *left -= got;
                    self.bytes += got;
                    if request.stalls && self.bytes >= STALL_AFTER {
                        self.phase = Phase::Stalled;
                    }
                }
            }
        }
    }

    /// Reads the head of a response, which ends at `end`.
    fn body_after(&mut self, end: usize) -> io::Result<Phase> {
        let text = String::from_utf8_lossy(&self.head[..end]);
        if !text.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(format!(
                "{}",
                String::from_utf8_lossy(&self.head)
            )));
        }
        let got = (self.head.len() - end) as u64;
        let length = content_length(&text).and_then(|length| length.checked_sub(got));
        self.bytes += got;
        Ok(Phase::Body {
            left: length.ok_or_else(|| io::Error::other("a response of another length"))?,
        })
    }
}

/// A request as it is sent.
struct Request {
    /// The head and the start of the body.
    start: Vec<u8>,
    length: u64,
    block: Vec<u8>,
    stalls: bool,
}

impl Request {
    fn new(work: Work) -> Self {
        let (method, path, body) = match work {
            Work::Get(length) | Work::StalledGet(length) => ("GET", format!("/bkt/o/{length}"), 0),
            Work::Put(length) => ("PUT", "/bkt/o/k".to_owned(), length),
            Work::StalledPut(length) => ("PUT", "/bkt/stall/k".to_owned(), length),
        };
        let mut start = signed_head(method, &path);
        if method == "PUT" {
            start.push_str("Content-Type: application/octet-stream\r\nContent-Length: ");
            start.push_str(&body.to_string());
            start.push_str("\r\n");
        }
        start.push_str("\r\n");
        let mut start = start.into_bytes();
        let length = start.len() as u64 + body;
        let with_head = cut(BLOCK, body.min(WITH_HEAD));
        start.resize(start.len() + with_head, BYTE);
        Self {
            start,
            length,
            block: vec![BYTE; BLOCK],
            stalls: matches!(work, Work::StalledGet(_)),
        }
    }

    /// What is to be sent after `sent` bytes.
    fn from(&self, sent: u64) -> &[u8] {
        match usize::try_from(sent)
            .ok()
            .and_then(|sent| self.start.get(sent..))
        {
            Some(rest @ [_, ..]) => rest,
            _ => piece_of(&self.block, self.length - sent),
        }
    }
}

/// The head of an SDK's request, without its empty line, signed now.
fn signed_head(method: &str, path: &str) -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let (date, amz_date) = (now.date(), now.amz());
    let scope = sigv4::CredentialScope {
        date: &date,
        region: REGION,
        service: "s3",
    };
    let key = sigv4::SigningKey::derive(&Secret::new(SECRET_KEY), &date, REGION, "s3");
    let signed = [
        ("host", HOST),
        ("x-amz-content-sha256", sigv4::UNSIGNED_PAYLOAD),
        ("x-amz-date", amz_date.as_str()),
    ];
    let headers: HeaderMap = signed
        .iter()
        .map(|&(name, value)| {
            let value = HeaderValue::from_str(value).expect("a header value");
            (HeaderName::from_static(name), value)
        })
        .collect();
    let request = Signable {
        method,
        path: path.as_bytes(),
        query: &[],
        headers: &headers,
    };
    let authorization = sigv4::SigV4Signer {
        access_key: ACCESS_KEY,
        key: &key,
        scope: &scope,
        amz_date: &amz_date,
    }
    .authorization(&request, sigv4::UNSIGNED_PAYLOAD);
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let other = [
        ("User-Agent", "aws-sdk-bench/1.0 ua/2.1 os/linux lang/rust"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        (
            "amz-sdk-invocation-id",
            "805a262b-9f32-4622-a20a-aa9504f8e0cf",
        ),
        ("amz-sdk-request", "attempt=1; max=3"),
        ("Authorization", &authorization),
    ];
    for (name, value) in signed.iter().chain(&other) {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
    head
}
