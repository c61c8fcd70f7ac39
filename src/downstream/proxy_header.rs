//! The header of the PROXY protocol, versions 1 and 2, by which a proxy says in front of a connection whose
//! connection it passes on (haproxy.org, proxy-protocol.txt).
//!
//! [`read`] looks at the bytes so far, and says how many more belong to the header at least. A reader that
//! takes no more than that never takes a byte of what follows, which is TLS or HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc_fast::{CrcAlgorithm, Digest};

/// The longest header of version 1, with its line end (section 2.1).
pub const V1_BYTES: usize = 107;
/// The longest header of version 2 that is taken. Its length field allows 64 KiB. One without the
/// certificate of a client fits 536 bytes (section 2); one with it has some KiB.
pub const V2_BYTES: usize = 4096;

/// `PROXY UNKNOWN` and the line end: no header is shorter.
const SHORTEST: usize = 15;
const V1_START: &[u8] = b"PROXY ";
const LINE_END: &[u8] = b"\r\n";
/// `PROXY`, family, two addresses and two ports.
const V1_WORDS: usize = 6;

const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;
const STREAM: u8 = 1;
/// Type and length in front of each value.
const TLV_HEAD: usize = 3;
const CRC32C: u8 = 0x03;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// This client's.
    Client(SocketAddr),
    /// The proxy's own: it looks whether cosgate is alive.
    Local,
    /// Somebody's whom the proxy cannot name: `UNKNOWN`, a Unix socket, a datagram.
    Unnamed,
}

/// How far a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is whole.
    Done(ProxyHeader),
    /// So many bytes more are its own at least.
    More(usize),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// An address or a port is none, or does not match the family.
    Address,
    /// The checksum is not that of the header.
    Checksum,
    /// A command, family or protocol that the specification does not assign.
    Command,
    /// The line or the values do not have the form that they must have.
    Malformed,
    /// It begins otherwise.
    Missing,
    /// It is longer than [`V1_BYTES`] or [`V2_BYTES`].
    TooLong,
}

impl ProxyHeaderError {
    /// The word for it in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Checksum => "checksum",
            Self::Command => "command",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::TooLong => "too_long",
        }
    }
}

/// Reads a header that starts with `bytes`, of which none lies behind its end.
pub fn read(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    let may_start = |start: &[u8]| {
        let length = start.len().min(bytes.len());
        bytes.get(..length) == start.get(..length)
    };
    if !may_start(V1_START) && !may_start(V2_START) {
        return Err(ProxyHeaderError::Missing);
    }
    if bytes.len() < SHORTEST {
        return Ok(Progress::More(SHORTEST - bytes.len()));
    }
    if may_start(V1_START) {
        read_v1(bytes)
    } else {
        read_v2(bytes)
    }
}

fn read_v1(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    let Some(line) = bytes.strip_suffix(LINE_END) else {
        if bytes.contains(&b'\n') {
            return Err(ProxyHeaderError::Malformed); // a line end without CR, or bytes behind it
        }
        let more = missing_of_v1(bytes)?;
        return if bytes.len() + more > V1_BYTES {
            Err(ProxyHeaderError::TooLong)
        } else {
            Ok(Progress::More(more))
        };
    };
    if bytes.len() > V1_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return Err(ProxyHeaderError::Malformed);
    }
    v1(line).map(Progress::Done)
}

/// How many bytes a line without its end lacks at least.
fn missing_of_v1(bytes: &[u8]) -> Result<usize, ProxyHeaderError> {
    if bytes.ends_with(b"\r") {
        return Ok(1);
    }
    if bytes.starts_with(b"PROXY U") {
        return Ok(LINE_END.len()); // what stands before the line end is ignored
    }
    let words = bytes.split(|byte| *byte == b' ').count();
    let absent = V1_WORDS
        .checked_sub(words)
        .ok_or(ProxyHeaderError::Malformed)?;
    // Each word that has not begun is a space and a character.
    Ok(2 * absent + usize::from(bytes.ends_with(b" ")) + LINE_END.len())
}

/// The line without its end (section 2.1).
fn v1(line: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let rest = line
        .strip_prefix(V1_START)
        .ok_or(ProxyHeaderError::Malformed)?;
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(ProxyHeader::Unnamed);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| ProxyHeaderError::Malformed)?;
    let words: Vec<&str> = rest.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else {
        return Err(ProxyHeaderError::Malformed);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    if !matches!(family, "TCP4" | "TCP6") {
        return Err(ProxyHeaderError::Command);
    }
    let found = (|| {
        address(destination)?;
        port(destination_port)?;
        Some(SocketAddr::new(address(source)?, port(source_port)?))
    })();
    found
        .map(ProxyHeader::Client)
        .ok_or(ProxyHeaderError::Address)
}

/// A port in decimal, without zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && is_short)
}

fn read_v2(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    let Some(&[.., command, family, high, low]) = bytes.first_chunk::<V2_HEAD>() else {
        return Ok(Progress::More(V2_HEAD.saturating_sub(bytes.len())));
    };
    let length = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    if bytes.len() < length {
        return Ok(Progress::More(length - bytes.len()));
    }
    if bytes.len() > length {
        return Err(ProxyHeaderError::Malformed);
    }
    match command {
        0x20 => Ok(Progress::Done(ProxyHeader::Local)), // all the rest is ignored (section 2.2)
        0x21 => v2(family, bytes).map(Progress::Done),
        _ => Err(ProxyHeaderError::Command),
    }
}

/// A whole header with the command `PROXY`.
fn v2(family: u8, header: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let (family, protocol) = (family >> 4, family & 0x0f);
    if family > 3 || protocol > 2 {
        return Err(ProxyHeaderError::Command);
    }
    let block = header.get(V2_HEAD..).unwrap_or_default();
    let (client, addresses) = match (family, protocol) {
        (1, _) => (v4(block)?, 12),
        (2, _) => (v6(block)?, 36),
        (3, _) if block.len() < 216 => return Err(ProxyHeaderError::Address),
        (3, _) => (None, 216),
        _ => return Ok(ProxyHeader::Unnamed), // where values would begin, nobody says
    };
    check_values(header, V2_HEAD + addresses)?;
    Ok(match client {
        Some(client) if protocol == STREAM => ProxyHeader::Client(client),
        _ => ProxyHeader::Unnamed,
    })
}

/// The source of a block of IPv4: two addresses and two ports.
fn v4(block: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let &[a, b, c, d, _, _, _, _, high, low, _, _] =
        block.first_chunk().ok_or(ProxyHeaderError::Address)?;
    let port = u16::from_be_bytes([high, low]);
    Ok(Some(SocketAddr::from(([a, b, c, d], port))))
}

/// The same of IPv6.
fn v6(block: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let block: &[u8; 36] = block.first_chunk().ok_or(ProxyHeaderError::Address)?;
    let source: &[u8; 16] = block.first_chunk().ok_or(ProxyHeaderError::Address)?;
    let [.., high, low, _, _] = *block;
    let port = u16::from_be_bytes([high, low]);
    Ok(Some(SocketAddr::from((*source, port))))
}

/// The values that follow the addresses must end where the header does, and its checksum, if there is
/// one, must be right (section 2.2.3).
fn check_values(header: &[u8], start: usize) -> Result<(), ProxyHeaderError> {
    let mut at = start;
    let mut has_checksum = false;
    while at < header.len() {
        let rest = header.get(at..).unwrap_or_default();
        let &[kind, high, low] = rest.first_chunk().ok_or(ProxyHeaderError::Malformed)?;
        let value = at + TLV_HEAD;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let checksum = header.get(value..end).ok_or(ProxyHeaderError::Malformed)?;
        if kind == CRC32C {
            let checksum: [u8; 4] = checksum
                .try_into()
                .map_err(|_| ProxyHeaderError::Malformed)?;
            if has_checksum {
                return Err(ProxyHeaderError::Malformed);
            }
            has_checksum = true;
            let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
            digest.update(header.get(..value).unwrap_or_default());
            digest.update(&[0; 4]); // it counts as zeros itself
            digest.update(header.get(end..).unwrap_or_default());
            if digest.finalize() != u64::from(u32::from_be_bytes(checksum)) {
                return Err(ProxyHeaderError::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as the server does: no more than requested. Gives what it found, and how many bytes it took.
    fn take(bytes: &[u8]) -> (Result<Option<ProxyHeader>, ProxyHeaderError>, usize) {
        let mut taken = 0;
        loop {
            match read(&bytes[..taken]) {
                Ok(Progress::Done(header)) => return (Ok(Some(header)), taken),
                Ok(Progress::More(more)) => {
                    assert!(more > 0);
                    if taken + more > bytes.len() {
                        return (Ok(None), taken);
                    }
                    taken += more;
                }
                Err(error) => return (Err(error), taken),
            }
        }
    }

    /// The header of `bytes`, which are followed by a request.
    fn header(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
        let (found, taken) = take(&[bytes, b"GET / HTTP/1.1\r\n\r\n"].concat());
        let found = found?.ok_or(ProxyHeaderError::Malformed)?;
        assert_eq!(
            taken,
            bytes.len(),
            "bytes that are not the header's were taken"
        );
        Ok(found)
    }

    fn client(text: &str) -> ProxyHeader {
        ProxyHeader::Client(text.parse().unwrap())
    }

    fn v2_of(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family], &length, block].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], value].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x1f, 0x90, 0x01, 0xbb];

    #[test]
    fn reads_lines_of_version_1() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\r\n",
                client("192.0.2.7:8080"),
            ),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", client("0.0.0.0:0")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                client("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 :: :: 1 1\r\n", client("[::]:1")),
            (
                "PROXY TCP6 2001:DB8::7 2001:db8::1 8080 443\r\n",
                client("[2001:db8::7]:8080"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.7 ::1 8080 443\r\n", // as inet_ntop(3) writes it
                client("[::ffff:192.0.2.7]:8080"),
            ),
            ("PROXY UNKNOWN\r\n", ProxyHeader::Unnamed),
            ("PROXY UNKNOWN \r\n", ProxyHeader::Unnamed),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                ProxyHeader::Unnamed,
            ),
        ] {
            assert_eq!(header(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn refuses_lines_that_are_not_to_the_letter() {
        for line in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}xxxxx",
            "proxy TCP4 192.0.2.7 198.51.100.1 8080 443\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 8080 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 443 \r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 8080 443\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 8080 443\r\n",
            "PROXY TCP4 192.0.2 198.51.100.1 8080 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.256 8080 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 8080 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 8080 443\r\n",
            "PROXY TCP6 2001:db8::7%1 2001:db8::1 8080 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 08080 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +8080 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 x\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 4\r3\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 8080 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
            "PROXY UNKNOWN \r \r\n",
            "PROXY UNIX a b c d\r\n",
            "PROXY \r\n",
        ] {
            assert!(header(line.as_bytes()).is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES));
        let (found, taken) = take(long.as_bytes());
        assert_eq!(found, Err(ProxyHeaderError::TooLong));
        assert!(taken <= V1_BYTES);
    }

    #[test]
    fn reads_blocks_of_version_2() {
        let v6 = [
            &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..],
            &[0; 16],
            &[0x1f, 0x90, 0, 1],
        ]
        .concat();
        let ssl = tlv(
            0x20,
            &[
                1, 0, 0, 0, 0, 0x21, 0, 7, b'T', b'L', b'S', b'v', b'1', b'.', b'3',
            ],
        );
        let values = [&V4[..], &tlv(0x04, &[]), &tlv(0xea, &[1; 300]), &ssl].concat();
        for (bytes, expected) in [
            (v2_of(0x21, 0x11, &V4), client("192.0.2.7:8080")),
            (v2_of(0x21, 0x11, &values), client("192.0.2.7:8080")),
            (v2_of(0x21, 0x21, &v6), client("[2001:db8::7]:8080")),
            (v2_of(0x21, 0x12, &V4), ProxyHeader::Unnamed),
            (v2_of(0x21, 0x31, &[1; 216]), ProxyHeader::Unnamed),
            (v2_of(0x21, 0x00, b""), ProxyHeader::Unnamed),
            (v2_of(0x21, 0x00, b"anything"), ProxyHeader::Unnamed),
            (v2_of(0x20, 0x00, b""), ProxyHeader::Local),
            (v2_of(0x20, 0x11, &V4), ProxyHeader::Local),
            (v2_of(0x20, 0xff, b"anything"), ProxyHeader::Local),
            (v2_of(0x20, 0, &[0; V2_BYTES - V2_HEAD]), ProxyHeader::Local),
        ] {
            assert_eq!(header(&bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn refuses_blocks_that_are_not_as_specified() {
        for (bytes, expected) in [
            (v2_of(0x22, 0x11, &V4), ProxyHeaderError::Command),
            (v2_of(0x11, 0x11, &V4), ProxyHeaderError::Command),
            (v2_of(0x21, 0x41, &V4), ProxyHeaderError::Command),
            (v2_of(0x21, 0x13, &V4), ProxyHeaderError::Command),
            (v2_of(0x21, 0x11, &V4[..11]), ProxyHeaderError::Address),
            (v2_of(0x21, 0x21, &[0; 35]), ProxyHeaderError::Address),
            (v2_of(0x21, 0x31, &[0; 215]), ProxyHeaderError::Address),
            (
                v2_of(0x21, 0x11, &[&V4[..], &[4, 0]].concat()),
                ProxyHeaderError::Malformed,
            ),
            (
                v2_of(0x21, 0x11, &[&V4[..], &[4, 0, 1]].concat()),
                ProxyHeaderError::Malformed,
            ),
            (
                v2_of(0x20, 0, &[0; V2_BYTES - V2_HEAD + 1]),
                ProxyHeaderError::TooLong,
            ),
        ] {
            assert_eq!(header(&bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn verifies_the_checksum_of_a_header() {
        // CRC-32C of RFC 3720 appendix B.4 over the header, by a table of our own.
        let crc32c = |bytes: &[u8]| {
            !bytes.iter().fold(u32::MAX, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
                })
            })
        };
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        let with = |value: &[u8]| {
            let block = [&V4[..], &tlv(CRC32C, value), &tlv(0x04, &[7; 9])].concat();
            v2_of(0x21, 0x11, &block)
        };
        let sum = crc32c(&with(&[0; 4])).to_be_bytes();
        assert_eq!(header(&with(&sum)), Ok(client("192.0.2.7:8080")));
        let mut wrong = with(&sum);
        wrong[V2_HEAD] ^= 1;
        assert_eq!(header(&wrong), Err(ProxyHeaderError::Checksum));
        assert_eq!(header(&with(&sum[1..])), Err(ProxyHeaderError::Malformed));
        let twice = [&V4[..], &tlv(CRC32C, &sum), &tlv(CRC32C, &sum)].concat();
        assert!(header(&v2_of(0x21, 0x11, &twice)).is_err());
    }

    proptest! {
        #[test]
        fn no_byte_behind_a_header_is_taken(
            source: SocketAddr, port: u16, unnamed in "[ -~]{0,80}", values in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (family, destination) = if source.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "::1") };
            let line = format!("PROXY {family} {} {destination} {} {port}\r\n", source.ip(), source.port());
            let expected = SocketAddr::new(source.ip(), source.port()); // no scope or flow
            prop_assert_eq!(header(line.as_bytes()), Ok(ProxyHeader::Client(expected)));
            let line = format!("PROXY UNKNOWN {unnamed}\r\n");
            prop_assert_eq!(header(line.as_bytes()), Ok(ProxyHeader::Unnamed));
            let block = match source.ip() {
                IpAddr::V4(ip) => [&ip.octets()[..], &[0; 4]].concat(),
                IpAddr::V6(ip) => [&ip.octets()[..], &[0; 16]].concat(),
            };
            let ports = [source.port().to_be_bytes(), port.to_be_bytes()].concat();
            let block = [block, ports, tlv(0xe0, &values)].concat();
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            prop_assert_eq!(header(&v2_of(0x21, family, &block)), Ok(ProxyHeader::Client(expected)));
        }

        #[test]
        fn no_bytes_panic_or_are_read_beyond_the_limits(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", V2_START, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"]),
            rest in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let bytes = [start, &rest].concat();
            let _ = read(&bytes);
            let (_, taken) = take(&bytes);
            prop_assert!(taken <= V2_BYTES);
            prop_assert!(taken <= V1_BYTES || !bytes.starts_with(b"P"));
        }
    }
}
