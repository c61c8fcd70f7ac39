//! Any start of a connection: a header of the PROXY protocol is read without a byte of what follows, and means the same
//! when it is written anew.

#![no_main]

use std::net::IpAddr;

use cosgate::downstream::proxy_header::{Progress, ProxyHeader, V1_BYTES, V2_BYTES, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut taken = 0;
    let header = loop {
        let Some(bytes) = input.get(..taken) else {
            return; // it ended within the header
        };
        match read(bytes) {
            Ok(Progress::More(more)) => {
                assert!(more > 0);
                taken += more;
            }
            Ok(Progress::Done(header)) => break header,
            Err(_) => return,
        }
        let most = if input.starts_with(b"PROXY") {
            V1_BYTES
        } else {
            V2_BYTES
        };
        assert!(taken <= most);
    };
    // A header is one however much of it is there at once, and with a byte more it is none.
    let bytes = &input[..taken];
    assert_eq!(read(bytes), Ok(Progress::Done(header)));
    for length in 0..taken {
        assert!(
            matches!(read(&bytes[..length]), Ok(Progress::More(more)) if length + more <= taken)
        );
    }
    assert!(
        !matches!(read(&[bytes, b"\n"].concat()), Ok(Progress::Done(_)) if !bytes.starts_with(b"PROXY UNKNOWN"))
    );
    if let ProxyHeader::Client(client) = header {
        let (family, other) = match client.ip() {
            IpAddr::V4(_) => ("TCP4", "192.0.2.1"),
            IpAddr::V6(_) => ("TCP6", "::1"),
        };
        let anew = format!(
            "PROXY {family} {} {other} {} 1\r\n",
            client.ip(),
            client.port()
        );
        assert_eq!(read(anew.as_bytes()), Ok(Progress::Done(header)));
    }
});
