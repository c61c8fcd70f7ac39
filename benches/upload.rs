//! What upload forms cost through the whole proxy, against a plain `PUT`: `cargo bench --bench upload`.
//!
//! cosgate is a program of its own, between a client and a COS that throws everything away. The machine
//! may be busy with other things, so rounds alternate and the best counts; CPU time is that of cosgate
//! alone.

#![allow(
    clippy::clone_on_ref_ptr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a bench may panic, and measures real time"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use support::frames::{Chain, chunks, http_chunks};
use support::{ACME, Call, Client, Program, find, header_of, toml};

const OBJECT: usize = 64 << 20;
const ROUNDS: usize = 12;
/// What an unsigned-trailer upload should reach of a plain one's speed.
const TARGET: f64 = 0.85;

/// A way to send the object.
struct Form {
    name: &'static str,
    call: Call,
    body: Vec<u8>,
    best: Cost,
}

#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn main() {
    let emulator = support::emulator();
    let program = Program::serve(&toml(sink(), emulator.sts_addr(), ""));
    let mut forms = forms(program.addr);
    for _ in 0..ROUNDS {
        for form in &mut forms {
            let cost = send(&program, form);
            form.best.wall = form.best.wall.min(cost.wall);
            form.best.cpu = form.best.cpu.min(cost.cpu);
        }
    }
    println!(
        "{} MiB, best of {ROUNDS}; speed against a plain PUT",
        OBJECT >> 20
    );
    let plain = forms[0].best;
    for Form { name, best, .. } in &forms {
        let wall = plain.wall.as_secs_f64() / best.wall.as_secs_f64();
        let cpu = plain.cpu.as_secs_f64() / best.cpu.as_secs_f64();
        println!(
            "{name:36} {:>9.1?} wall {wall:.2}   {:>9.1?} CPU {cpu:.2}",
            best.wall, best.cpu
        );
    }
    println!("target for an unsigned trailer: {TARGET}");
}

/// A COS that takes any object and keeps none.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || swallow(stream));
        }
    });
    addr
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = find(&head, b"\r\n\r\n") {
                break at + 4;
            }
            let Ok(got @ 1..) = stream.read(&mut buffer) else {
                return;
            };
            head.extend_from_slice(&buffer[..got]);
        };
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        let length: usize = header_of(&text, "content-length").unwrap().parse().unwrap();
        let mut left = length - (head.len() - end);
        while left > 0 {
            let Ok(got @ 1..) = stream.read(&mut buffer) else {
                return;
            };
            left -= got;
        }
        head.clear();
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n")
            .is_err()
        {
            return;
        }
    }
}

fn forms(addr: SocketAddr) -> Vec<Form> {
    let object: Vec<u8> = (0..=250_u8).cycle().take(OBJECT).collect();
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, &object).to_be_bytes();
    let crc = BASE64_STANDARD.encode(&crc[4..]);
    let put = |payload: &str| {
        let call = Call::new(addr, "PUT", "/photos/acme/k").signed_by(ACME);
        call.payload(payload)
    };
    let length = |call: Call, length: usize| call.header("content-length", &length.to_string());
    let decoded = ("x-amz-decoded-content-length", OBJECT.to_string());
    let form = |name, call, body| Form {
        name,
        call,
        body,
        best: Cost {
            wall: Duration::MAX,
            cpu: Duration::MAX,
        },
    };

    let plain = length(put("UNSIGNED-PAYLOAD"), OBJECT);
    let summed = plain.clone().header("x-amz-checksum-crc32", &crc);
    let trailing = put("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .header(decoded.0, &decoded.1)
        .header("x-amz-trailer", "x-amz-checksum-crc32");
    let with_trailer = |size| {
        let mut body = chunks(&object, size, None);
        body.extend_from_slice(format!("x-amz-checksum-crc32:{crc}\r\n\r\n").as_bytes());
        body
    };
    let large = http_chunks(&with_trailer(1 << 20), 1 << 20);
    let small = with_trailer(64 << 10);
    let hashed = length(put(&cosgate::encoding::hex::sha256_hex(&object)), OBJECT);
    let signed = put("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").header(decoded.0, &decoded.1);
    let mut unsent = Chain::new(&signed, &signed.head());
    let framed = chunks(&object, 64 << 10, Some(&mut unsent)).len() + 2;
    let signed = length(signed, framed);
    let mut chain = Chain::new(&signed, &signed.head());
    let mut body = chunks(&object, 64 << 10, Some(&mut chain));
    body.extend_from_slice(b"\r\n");
    vec![
        form("plain", plain, object.clone()),
        form("plain, CRC-32 in the head", summed, object.clone()),
        form(
            "unsigned trailer, 64 KiB chunks",
            length(trailing.clone(), small.len()),
            small,
        ),
        form(
            "unsigned trailer, 1 MiB, HTTP chunks",
            trailing.header("transfer-encoding", "chunked"),
            large,
        ),
        form("hashed", hashed, object),
        form("signed, 64 KiB chunks", signed, body),
    ]
}

fn send(program: &Program, form: &Form) -> Cost {
    let mut client = Client::connect(program.addr);
    let cpu = cpu_time(program);
    let began = Instant::now();
    client.write(&form.call.head());
    client.write(&form.body);
    client.read_reply("PUT").assert_ok();
    Cost {
        wall: began.elapsed(),
        cpu: cpu_time(program).saturating_sub(cpu),
    }
}

/// CPU time of all threads of the program.
fn cpu_time(program: &Program) -> Duration {
    let tasks = format!("/proc/{}/task", program.process.id());
    let tasks = std::fs::read_dir(tasks).unwrap().map_while(Result::ok);
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
