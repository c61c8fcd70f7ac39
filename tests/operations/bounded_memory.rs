//! How much memory bodies take, measured on the program alone.
//!
//! `COSGATE_TEST_BYTES=5368709120 cargo test --release --test operations memory` moves 5 GiB; 192 MiB without.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::frames::{Chain, chunks, http_chunks};
use crate::support::http2::{Http2, request, send_data};
use crate::support::{self, ACME, Authority, Call, Client, Program, act, header_of, run, toml};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::client::Builder;
use socket2::{Domain, SockRef, Socket, Type};

const STALLED: usize = 1000;
const GIB: usize = 1 << 30;
const KEY: &str = "/photos/acme/k";
/// Small, so that a peer stops taking bytes soon.
const SOCKET_BUFFER: usize = 16 * 1024;

/// A COS that responses GET with a GiB, as far as it is read, and stops after the head of a PUT.
fn stalling_cos() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = socket.accept().unwrap();
            let mut stream = TcpStream::from(stream);
            let head = read_head(&mut stream);
            if head.starts_with("GET") {
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n");
                stream.write_all(response.as_bytes()).unwrap();
                let mut writer = stream.try_clone().unwrap();
                let small = std::thread::Builder::new().stack_size(64 * 1024);
                let write = move || while writer.write_all(&[7; 8192]).is_ok() {};
                small.spawn(write).unwrap();
            }
            kept.push(stream);
        }
    });
    addr
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A connection that takes few bytes, with the head of `call` sent.
fn start(call: &Call) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket.connect(&call.addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&call.head()).unwrap();
    stream
}

/// Writes to all of `streams` until none has taken a byte for a while.
fn fill(streams: &mut [TcpStream]) {
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_secs(1) {
        for stream in &mut *streams {
            match stream.write(&[7; 65536]) {
                Ok(written) => {
                    assert!(written > 0);
                    moved = Instant::now();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn put(addr: SocketAddr, length: usize) -> Call {
    Call::new(addr, "PUT", KEY)
        .header("content-length", &length.to_string())
        .payload("UNSIGNED-PAYLOAD")
        .signed_by(ACME)
}

fn get(addr: SocketAddr) -> Call {
    Call::new(addr, "GET", KEY).signed_by(ACME)
}

#[test]
fn a_thousand_stalled_uploads_and_downloads_stay_within_150_mib() {
    let pid = std::process::id().to_string();
    run("prlimit", &["--pid", &pid, "--nofile=16384"]);
    let emulator = support::emulator();
    let program = Program::serve(&toml(stalling_cos(), emulator.sts_addr(), ""));
    let mut streams = vec![start(&get(program.addr))]; // has the key fetched
    let mut first = [0; 1];
    streams[0].read_exact(&mut first).unwrap();
    let before = program.memory("VmRSS");

    let mut uploads = Vec::new();
    for _ in 0..STALLED {
        let upload = start(&put(program.addr, GIB));
        SockRef::from(&upload).set_nonblocking(true).unwrap();
        uploads.push(upload);
        streams.push(start(&get(program.addr)));
    }
    fill(&mut uploads);
    for stream in &mut streams {
        stream.peek(&mut first).unwrap(); // each has its response
    }
    let grown = program.memory("VmRSS") - before;
    let most = program.memory("VmHWM") - before;
    println!("{STALLED} stalled each way: {grown} KiB more than {before} KiB, {most} KiB at most");
    assert!(grown <= 150 * 1024, "{grown} KiB");
}

/// The same on 20 connections of HTTP/2. Half of the downloads stall in their streams' windows, and half in
/// the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_streams_each_way_stay_within_150_mib() {
    const EACH: usize = 100;
    let pid = std::process::id().to_string();
    run("prlimit", &["--pid", &pid, "--nofile=16384"]);
    let emulator = support::emulator();
    let authority = Authority::new("ours");
    let tls = authority.tls("[server.limits]\nbody_window = \"10m\"");
    let program = Program::serve(&toml(stalling_cos(), emulator.sts_addr(), &tls));
    let mut closed = Builder::new();
    closed.initial_window_size(65_535);
    let mut open = closed.clone();
    open.initial_window_size(0)
        .initial_connection_window_size(1 << 30);
    let connect = async |builder| Http2::connect_as(&authority, program.addr, builder).await;
    let first = connect(&closed).await; // has the key fetched
    let first_response = first.fetch(&get(program.addr)).await;
    let before = program.memory("VmRSS");

    let started = Instant::now();
    let (mut responses, mut connections) = (vec![first_response], vec![]);
    for number in 0..STALLED / EACH {
        let in_window = number % 2 == 0;
        let uploads = connect(&closed).await;
        let downloads = connect(if in_window { &closed } else { &open }).await;
        for _ in 0..EACH {
            let (response, mut stream) = uploads.start(request(&put(program.addr, GIB))).await;
            tokio::spawn(async move {
                while send_data(&mut stream, &[7; 16_384], false).await.is_ok() {}
                drop(response);
            });
            responses.push(downloads.fetch(&get(program.addr)).await);
        }
        if !in_window {
            downloads.open_and_stop();
        }
        connections.push((uploads, downloads));
    }
    let (mut grown, mut still) = (0, 0);
    while still < 4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = program.memory("VmRSS") - before;
        still = if now < grown + 512 { still + 1 } else { 0 };
        grown = grown.max(now);
        println!("{now} KiB after {:?}", started.elapsed());
    }
    let most = program.memory("VmHWM") - before;
    println!("{STALLED} stalled each way: {grown} KiB more than {before} KiB, {most} KiB at most");
    drop((responses, connections));
    assert!(grown <= 150 * 1024, "{grown} KiB");
}

/// A slow peer is one that pauses for a millisecond with each MiB.
#[test]
fn a_large_body_needs_no_more_than_64_mib_however_slow_its_peers() {
    let length = std::env::var("COSGATE_TEST_BYTES").map_or(192 << 20, |n| n.parse().unwrap());
    let cos = support::Script::new(vec![act(move |peer| {
        while let Some(head) = peer.head() {
            if head.starts_with("GET") {
                peer.respond(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                ));
                send(&mut peer.client.stream, length, false);
                continue;
            }
            let length = header_of(&head, "content-length").unwrap();
            let mut left: usize = length.parse().unwrap();
            while left > 0 {
                left -= peer.take(left.min(1 << 20)).len();
                std::thread::sleep(Duration::from_millis(1));
            }
            peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n");
        }
    })]);
    let emulator = support::emulator();
    let program = Program::serve(&toml(cos.addr, emulator.sts_addr(), ""));

    let started = Instant::now();
    let mut client = Client::connect(program.addr);
    client.write(&put(program.addr, length).head());
    send(&mut client.stream, length, true);
    client.read_reply("PUT").assert_ok();
    let after_put = program.memory("VmHWM");
    println!(
        "PUT of {length} bytes: {:?}, {after_put} KiB at most",
        started.elapsed()
    );

    let started = Instant::now();
    client.write(&get(program.addr).head());
    let head = read_head(&mut client.stream);
    assert_eq!(
        header_of(&head, "content-length"),
        Some(length.to_string().as_str())
    );
    let (mut part, sent) = (vec![0; 1 << 20], vec![7; 1 << 20]);
    let mut left = length;
    while left > 0 {
        let part = &mut part[..left.min(1 << 20)];
        client.stream.read_exact(part).unwrap();
        assert!(*part == sent[..part.len()]);
        left -= part.len();
        std::thread::sleep(Duration::from_millis(1));
    }
    let after_get = program.memory("VmHWM");
    println!(
        "GET of {length} bytes: {:?}, {after_get} KiB at most",
        started.elapsed()
    );
    assert!(after_get <= 64 * 1024, "{after_get} KiB");
}

/// However large its chunks: a signed one is judged at its end, but passes as it comes.
#[test]
fn a_chunked_upload_needs_no_memory_for_its_chunks() {
    const CHUNK: usize = 8 << 20;
    let object = vec![7; 4 * CHUNK];
    let cos = support::Script::new(vec![act(|peer| {
        while let Some(head) = peer.head() {
            let length = header_of(&head, "content-length").unwrap();
            let mut left: usize = length.parse().unwrap();
            while left > 0 {
                left -= peer.take(left.min(1 << 20)).len();
                std::thread::sleep(Duration::from_millis(1));
            }
            peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n");
        }
    })]);
    let emulator = support::emulator();
    let program = Program::serve(&toml(cos.addr, emulator.sts_addr(), ""));
    let mut client = Client::connect(program.addr);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &object);
    let crc = u32::try_from(crc).unwrap().to_be_bytes();
    let trailer = format!("x-amz-checksum-crc32:{}", BASE64_STANDARD.encode(crc));
    let mut upload = |payload: &str, size: usize| {
        let call = Call::new(program.addr, "PUT", KEY)
            .header("transfer-encoding", "chunked")
            .header("x-amz-decoded-content-length", &object.len().to_string())
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .payload(payload)
            .signed_by(ACME);
        let head = call.head();
        let mut chain = Chain::new(&call, &head);
        let signer = payload.contains("HMAC").then_some(&mut chain);
        let mut body = chunks(&object, size, signer);
        body.extend_from_slice(format!("{trailer}\r\n").as_bytes());
        if payload.contains("HMAC") {
            let signature = chain.trailer(&format!("{trailer}\n"));
            body.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        client.write(&head);
        client.write(&http_chunks(&body, 1 << 20));
        client.read_reply("PUT").assert_ok();
        program.memory("VmHWM")
    };
    let unsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let signed = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
    let before = upload(unsigned, 65_536);
    let after_signed = upload(signed, CHUNK).saturating_sub(before);
    let after_unsigned = upload(unsigned, object.len()).saturating_sub(before);
    println!("8 MiB chunks: {after_signed} KiB more; one chunk: {after_unsigned} KiB more");
    assert!(after_unsigned <= 2 * 1024, "{after_unsigned} KiB");
}

fn send(stream: &mut TcpStream, length: usize, slow: bool) {
    let part = vec![7; 1 << 20];
    let mut left = length;
    while left > 0 {
        let part = &part[..left.min(1 << 20)];
        stream.write_all(part).unwrap();
        left -= part.len();
        if slow {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
