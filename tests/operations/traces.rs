//! Traces that `cosgate serve` sends to a collector.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use cosgate::encoding::hex::hex;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::{self, ACCOUNT, ACME, Call, PATIENCE, Program, eventually, toml};

const KEY: &str = "/photos/acme/k";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Head and body of a request.
type Message = (String, Vec<u8>);

/// A collector that keeps what it gets.
#[derive(Clone)]
struct Recorder {
    addr: SocketAddr,
    got: Arc<Mutex<Vec<Message>>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Self {
            addr: listener.local_addr().unwrap(),
            got: Arc::default(),
        };
        let got = Arc::clone(&recorder.got);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let message = take(socket.unwrap());
                got.lock().unwrap().push(message);
            }
        });
        recorder
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let messages = got
            .iter()
            .map(|(_, body)| ExportTraceServiceRequest::decode(&body[..]).unwrap());
        messages
            .flat_map(|message| message.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans().into_iter();
        spans.filter(|span| span.name == name).collect()
    }

    /// `[traces]` that sends here.
    fn config(&self, more: &str) -> String {
        format!(
            "[traces]\nenabled = true\nendpoint = \"http://{}/v1/traces\"\n{more}\n",
            self.addr
        )
    }
}

/// Reads one request, and responds with an empty message.
fn take(mut socket: TcpStream) -> Message {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let head = loop {
        let mut piece = [0; 4096];
        let read = socket.read(&mut piece).unwrap();
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
        }
    };
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let got = bytes.len();
    bytes.resize(length, 0);
    socket.read_exact(&mut bytes[got..]).unwrap();
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    (head, bytes)
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    found.value.clone()?.value
}

#[test]
fn sends_the_spans_of_a_joined_trace() {
    let emulator = support::emulator();
    let recorder = Recorder::start();
    let more = recorder.config("share = \"0%\"\nauthorization = \"CANARY-collector\"");
    let mut program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), &more));
    let signed = |method: &str| Call::new(program.addr, method, KEY).signed_by(ACME);
    signed("PUT").body("hello").send().assert_ok(); // neither in the share nor of a trace
    let unrecorded = format!("00-{}-{PARENT}-00", TRACE.replace('4', "5"));
    signed("GET")
        .header("traceparent", &unrecorded)
        .send()
        .assert_ok();
    let get = signed("GET")
        .presigned(60)
        .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=opaque")
        .header("user-agent", "CANARY-agent");
    get.send().assert_ok();
    program.signal("TERM"); // what waits is sent at the end
    assert_eq!(program.wait(), Some(0));

    let spans = recorder.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["GetObject", "admission", "key", "upstream", "body"]);
    let request = &spans[0];
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    assert_eq!(
        (request.kind, &*request.trace_state),
        (SERVER, "vendor=opaque")
    );
    let status = attribute(request, "http.response.status_code");
    assert_eq!(status, Some(Value::IntValue(200)));
    let tenant = attribute(request, "cosgate.tenant");
    assert_eq!(tenant, Some(Value::StringValue("acme".to_owned())));
    let mut before = request.start_time_unix_nano;
    for part in &spans[1..] {
        assert_eq!(hex(&part.trace_id), TRACE);
        assert_eq!(part.parent_span_id, request.span_id, "{}", part.name);
        assert!(before <= part.start_time_unix_nano, "{}", part.name);
        assert!(
            part.start_time_unix_nano <= part.end_time_unix_nano,
            "{}",
            part.name
        );
        before = part.end_time_unix_nano;
    }
    assert!(before <= request.end_time_unix_nano + 1_000_000);
    assert_eq!(spans[3].kind, CLIENT);

    let got = recorder.got.lock().unwrap();
    let (head, body) = &got[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: CANARY-collector"), "{head}");
    let text = String::from_utf8_lossy(body);
    for secret in [ACME.1, ACCOUNT.1, "CANARY", "Signature", "acme/k"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(!program.printed().contains("CANARY-collector"));
}

#[test]
fn sends_the_spans_of_traces_that_begin_here() {
    let emulator = support::emulator();
    let recorder = Recorder::start();
    let more = recorder.config("share = \"100%\"");
    let mut program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), &more));
    let get = Call::new(program.addr, "GET", KEY);
    assert_eq!(get.clone().signed_by(ACME).send().status, 404);
    assert_eq!(get.signed_by((ACME.0, "wrong")).send().status, 403);
    eventually("they are sent while it serves", || {
        recorder.named("GetObject").len() == 2
    });
    program.signal("TERM");
    assert_eq!(program.wait(), Some(0));
    let requests = recorder.named("GetObject");
    assert!(requests.iter().all(|span| span.parent_span_id.is_empty()));
    assert!(requests[0].trace_id != requests[1].trace_id);
    let parts = |request: &Span| {
        let spans = recorder.spans().into_iter();
        let parts = spans.filter(|span| span.parent_span_id == request.span_id);
        parts.map(|span| span.name).collect::<Vec<_>>()
    };
    assert_eq!(
        parts(&requests[0]),
        ["admission", "key", "upstream", "body"]
    );
    assert_eq!(parts(&requests[1]), ["admission", "body"]);
    let upstream = &recorder.named("upstream")[0];
    let status = attribute(upstream, "http.response.status_code");
    assert_eq!(status, Some(Value::IntValue(404)));
    let verdict = attribute(&requests[1], "cosgate.verdict");
    assert_eq!(verdict, Some(Value::StringValue("refused".to_owned())));
}
