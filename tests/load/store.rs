//! A small store that keeps objects in memory, checks no signature and damages objects on demand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cosgate::encoding::percent::percent_decode;

/// The damage that the store does.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// Every n-th put is acknowledged but not stored.
    pub lose: Option<u64>,
    /// Every n-th put is stored with one byte changed.
    pub flip: Option<u64>,
    /// Every n-th put also stores an object that no client has put.
    pub phantom: Option<u64>,
    /// Every n-th delete does nothing.
    pub undelete: Option<u64>,
    /// Every n-th get returns one byte changed.
    pub flip_reads: Option<u64>,
    /// Every n-th listed object is left out.
    pub hide: Option<u64>,
    /// Every n-th put is stored but gets status 500.
    pub doubt: Option<u64>,
    /// One stall: its start after the first get, and its length.
    pub stall: Option<(Duration, Duration)>,
    /// Requests are served one at a time, and each takes this long.
    pub serial: Option<Duration>,
}

#[derive(Default)]
struct State {
    damage: Damage,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    puts: AtomicU64,
    gets: AtomicU64,
    deletes: AtomicU64,
    first: Mutex<Option<Instant>>,
    turn: Mutex<()>,
}

/// A running store.
pub struct Store {
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct StoreRequest {
    method: String,
    key: String,
    query: String,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

impl Store {
    pub fn new(damage: Damage) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            damage,
            ..State::default()
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&state, &stream));
            }
        });
        Self { addr, state }
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.objects.lock().unwrap().keys().cloned().collect()
    }

    pub fn put(&self, key: &str) {
        let mut objects = self.state.objects.lock().unwrap();
        objects.insert(key.to_owned(), b"another's".to_vec());
    }
}

fn serve(state: &State, stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        if request.method == "GET" && request.query.is_empty() {
            wait(state);
        }
        let (status, body) = respond(state, &request);
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\netag: \"x\"\r\n\r\n");
        let mut whole = head.into_bytes();
        if request.method != "HEAD" {
            whole.extend(body);
        }
        if (&*stream).write_all(&whole).is_err() {
            return;
        }
    }
}

fn wait(state: &State) {
    if let Some((after, length)) = state.damage.stall {
        let first = *state.first.lock().unwrap().get_or_insert_with(Instant::now);
        let (start, end) = (first + after, first + after + length);
        let now = Instant::now();
        if (start..end).contains(&now) {
            std::thread::sleep(end - now);
        }
    }
    if let Some(each) = state.damage.serial {
        let _turn = state.turn.lock().unwrap();
        std::thread::sleep(each);
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<StoreRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = String::from_utf8(percent_decode(path)?.into_owned()).ok()?;
    let (mut length, mut range) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        if let Some(value) = lower.strip_prefix("range: bytes=") {
            let (from, to) = value.split_once('-')?;
            range = Some((from.parse().ok()?, to.parse().ok()?));
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(StoreRequest {
        method,
        key: path
            .strip_prefix("/b")
            .unwrap_or(&path)
            .trim_start_matches('/')
            .to_owned(),
        query: query.to_owned(),
        range,
        body,
    })
}

fn is_due(count: &AtomicU64, every: Option<u64>) -> bool {
    let count = count.load(Ordering::SeqCst);
    every.is_some_and(|every| count.is_multiple_of(every))
}

fn respond(state: &State, request: &StoreRequest) -> (u16, Vec<u8>) {
    let damage = &state.damage;
    let mut objects = state.objects.lock().unwrap();
    match request.method.as_str() {
        "PUT" => {
            state.puts.fetch_add(1, Ordering::SeqCst);
            let mut body = request.body.clone();
            if is_due(&state.puts, damage.flip) {
                body[0] ^= 1;
            }
            if is_due(&state.puts, damage.phantom) {
                objects.insert(format!("{}.phantom", request.key), vec![1]);
            }
            if !is_due(&state.puts, damage.lose) {
                objects.insert(request.key.clone(), body);
            }
            let status = if is_due(&state.puts, damage.doubt) {
                500
            } else {
                200
            };
            (status, Vec::new())
        }
        "DELETE" => {
            state.deletes.fetch_add(1, Ordering::SeqCst);
            // Only single deletes: the clean-up at the end deletes in batches.
            if !is_due(&state.deletes, damage.undelete) {
                objects.remove(&request.key);
            }
            (204, Vec::new())
        }
        "POST" => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            for part in text.split("<Key>").skip(1) {
                let key = part.split("</Key>").next().unwrap_or_default();
                objects.remove(&unescape(key));
            }
            (200, b"<DeleteResult></DeleteResult>".to_vec())
        }
        _ if request.query.contains("list-type=2") => (200, list(&objects, damage, &request.query)),
        _ if request.query.contains("uploads") => (404, Vec::new()),
        _ => {
            let Some(body) = objects.get(&request.key) else {
                return (
                    404,
                    b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>".to_vec(),
                );
            };
            state.gets.fetch_add(1, Ordering::SeqCst);
            let mut body = body.clone();
            if is_due(&state.gets, damage.flip_reads) {
                body[0] ^= 1;
            }
            match request.range {
                Some((from, to)) => (206, body[from..=to].to_vec()),
                None => (200, body),
            }
        }
    }
}

fn list(objects: &BTreeMap<String, Vec<u8>>, damage: &Damage, query: &str) -> Vec<u8> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
        value.map(|value| String::from_utf8(percent_decode(value).unwrap().into_owned()).unwrap())
    };
    let prefix = value("prefix").unwrap_or_default();
    let after = value("continuation-token").unwrap_or_default();
    let mut out = "<ListBucketResult>".to_owned();
    let matching = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let mut truncated = false;
    for (index, (key, body)) in matching.enumerate() {
        if index == 100 {
            truncated = true;
            break;
        }
        if damage
            .hide
            .is_some_and(|every| (index as u64 + 1).is_multiple_of(every))
        {
            continue;
        }
        let key = key
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let size = body.len();
        let _ = write!(
            out,
            "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"
        );
    }
    let _ = write!(out, "<IsTruncated>{truncated}</IsTruncated>");
    if truncated {
        let matching = objects
            .keys()
            .filter(|key| key.starts_with(&prefix) && **key > after);
        let last = matching.take(100).last().unwrap();
        let last = last.replace('&', "&amp;");
        let _ = write!(out, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    out.push_str("</ListBucketResult>");
    out.into_bytes()
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}
