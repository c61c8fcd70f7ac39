//! A stand-in of COS that costs little: one thread, every object made of the same byte.
//!
//! `GET …/N` sends `N` bytes. `PUT` reads the body, and responds with the CRC-64 and the MD5 of that many of
//! [`BYTE`], which is all that the load ever sends. Under `/stall/`, a `PUT` is read up to
//! [`STALL_AFTER`] bytes and no further.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::poll::{Poll, Ready};

/// The byte that every object is made of.
pub(crate) const BYTE: u8 = b'x';
/// Bytes of a stalled upload that are read.
pub(crate) const STALL_AFTER: u64 = 256 << 10;
const BLOCK: usize = 256 << 10;
const HEAD_END: &[u8] = b"\r\n\r\n";
const LISTENER: usize = usize::MAX;

/// The CRC-64 and the `ETag` of each object, by length.
pub(crate) struct Objects(HashMap<u64, (u64, String)>);

impl Objects {
    /// Reads through the longest of them once.
    pub(crate) fn new(lengths: &[u64]) -> Self {
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        let block = vec![BYTE; BLOCK];
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Xz);
        let (mut md5, mut at, mut objects) = (Md5::new(), 0, HashMap::new());
        for length in lengths {
            while at < length {
                let piece = piece_of(&block, length - at);
                crc.update(piece);
                md5.update(piece);
                at += piece.len() as u64;
            }
            let mut etag = String::new();
            for byte in md5.clone().finalize() {
                let _ = write!(etag, "{byte:02x}");
            }
            objects.insert(length, (crc.finalize(), etag));
        }
        Self(objects)
    }

    /// The head of a response about the object of `length`, with a body of `body`.
    fn head(&self, length: u64, body: u64) -> Vec<u8> {
        let Some((crc, etag)) = self.0.get(&length) else {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        };
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {body}\r\n\
             Connection: keep-alive\r\nAccept-Ranges: bytes\r\nDate: Thu, 15 Jan 2026 12:30:45 GMT\r\n\
             ETag: \"{etag}\"\r\nLast-Modified: Thu, 15 Jan 2026 11:00:00 GMT\r\nServer: tencent-cos\r\n\
             x-cos-hash-crc64ecma: {crc}\r\nx-cos-request-id: NjkyNDE5ZjBfYWJjZGVmMDlfMTIzNF81Njc4OTA=\r\n\
             x-cos-storage-class: STANDARD\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Starts it on a free port, on a thread that lives as long as the process.
pub(crate) fn start(
    objects: Arc<Objects>,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || serve(&listener, &objects, tls.as_ref()));
    Ok(addr)
}

fn serve(
    listener: &TcpListener,
    objects: &Objects,
    tls: Option<&Arc<ServerConfig>>,
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Ready::IN)?;
    let mut connections: HashMap<usize, Connection> = HashMap::new();
    let (mut next, mut blocks) = (0, Blocks::default());
    loop {
        let ready: Vec<usize> = poll.wait(Duration::from_secs(1))?.collect();
        for number in ready {
            if number == LISTENER {
                let connection = Connection::accept(listener, tls)?;
                poll.add(&connection.socket, next, Ready::IN)?;
                connections.insert(next, connection);
                next += 1;
                continue;
            }
            let Some(connection) = connections.get_mut(&number) else {
                continue;
            };
            match connection.advance(objects, &mut blocks) {
                Ok(wanted) if wanted == connection.wanted => {}
                Ok(wanted) => {
                    connection.wanted = wanted;
                    poll.modify(&connection.socket, number, wanted)?;
                }
                Err(_) => drop(connections.remove(&number)),
            }
        }
    }
}

struct Blocks {
    object: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            object: vec![BYTE; BLOCK],
            scratch: vec![0; BLOCK],
        }
    }
}

struct Connection {
    socket: Socket,
    head: Vec<u8>,
    phase: Phase,
    wanted: Ready,
}

enum Phase {
    Head,
    Receiving {
        length: u64,
        left: u64,
        stall: bool,
    },
    Sending {
        head: Vec<u8>,
        sent: usize,
        left: u64,
    },
}

impl Connection {
    fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let (tcp, _) = listener.accept()?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let socket = match tls {
            None => Socket::Plain(tcp),
            Some(config) => {
                let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Socket::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        Ok(Self {
            socket,
            head: Vec::new(),
            phase: Phase::Head,
            wanted: Ready::IN,
        })
    }

    /// Goes on until the socket blocks, and says what it waits for. An error ends the connection.
    fn advance(&mut self, objects: &Objects, blocks: &mut Blocks) -> io::Result<Ready> {
        match self.transfer(objects, blocks) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(self.waits_for()),
            other => other,
        }
    }

    fn waits_for(&self) -> Ready {
        if matches!(self.phase, Phase::Sending { .. }) || self.socket.wants_write() {
            Ready::OUT
        } else {
            Ready::IN
        }
    }

    fn transfer(&mut self, objects: &Objects, blocks: &mut Blocks) -> io::Result<Ready> {
        loop {
            match &mut self.phase {
                Phase::Head => {
                    if let Some(end) = end_of_head(&self.head) {
                        self.begin(end, objects)?;
                        continue;
                    }
                    let got = read_some(&mut self.socket, &mut blocks.scratch)?;
                    self.head.extend_from_slice(&blocks.scratch[..got]);
                }
                Phase::Receiving {
                    length, left: 0, ..
                } => {
                    let head = objects.head(*length, 0);
                    self.phase = Phase::Sending {
                        head,
                        sent: 0,
                        left: 0,
                    };
                }
                Phase::Receiving {
                    length,
                    left,
                    stall,
                } => {
                    if *stall && *length - *left >= STALL_AFTER {
                        return Ok(Ready::empty());
                    }
                    let room = cut(blocks.scratch.len(), *left);
                    *left -= read_some(&mut self.socket, &mut blocks.scratch[..room])? as u64;
                }
                Phase::Sending { head, sent, left } => {
                    let (start, body) = (&head[*sent..], piece_of(&blocks.object, *left));
                    if start.is_empty() && body.is_empty() {
                        self.socket.flush()?;
                        self.phase = Phase::Head;
                        continue;
                    }
                    let pieces = [IoSlice::new(start), IoSlice::new(body)];
                    let wrote = self.socket.write_vectored(&pieces)?;
                    let of_head = wrote.min(start.len());
                    *sent += of_head;
                    *left -= (wrote - of_head) as u64;
                }
            }
        }
    }

    /// Reads the request whose head ends at `end`.
    fn begin(&mut self, end: usize, objects: &Objects) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.head[..end]);
        let mut words = text.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        self.phase = if method == "GET" {
            let name = path.rsplit('/').next().unwrap_or("");
            let length: u64 = name.parse().unwrap_or(u64::MAX);
            let known = objects.0.contains_key(&length);
            Phase::Sending {
                head: objects.head(length, length),
                sent: 0,
                left: if known { length } else { 0 },
            }
        } else {
            let length = content_length(&text).ok_or(io::ErrorKind::InvalidData)?;
            let have = (self.head.len() - end) as u64;
            Phase::Receiving {
                length,
                left: length.checked_sub(have).ok_or(io::ErrorKind::InvalidData)?,
                stall: path.contains("/stall/"),
            }
        };
        // Nobody here sends a second request before the response to the first: what follows a head is its body.
        self.head.clear();
        Ok(())
    }
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Socket {
    fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.conn.wants_write(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(tcp) => tcp.as_fd(),
            Self::Tls(tls) => tls.sock.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write_vectored(pieces),
            Self::Tls(tls) => tls.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Reads at least one byte; the end of the connection is an error.
pub(crate) fn read_some(socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        got => Ok(got),
    }
}

/// Where the head ends, with its empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, HEAD_END).map(|at| at + HEAD_END.len())
}

/// The first `Content-Length` of a head.
pub(crate) fn content_length(head: &str) -> Option<u64> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let length = name.eq_ignore_ascii_case("content-length");
        length.then(|| value.trim().parse().ok())?
    })
}

/// The start of `block`, at most `left` bytes of it.
pub(crate) fn piece_of(block: &[u8], left: u64) -> &[u8] {
    &block[..cut(block.len(), left)]
}

/// The smaller of both.
pub(crate) fn cut(room: usize, left: u64) -> usize {
    usize::try_from(left).map_or(room, |left| left.min(room))
}
