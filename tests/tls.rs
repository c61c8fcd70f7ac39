//! The listener over TLS: both versions, uploads as SDKs send them over HTTPS, clients' certificates.
#![cfg(feature = "emulator")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ProtocolVersion, SupportedProtocolVersion};
use support::{Authority, BUCKET, Call, Client, Reply, tls_client};

const KEY: &str = "/photos/acme/k";
const STORED: &str = "acme/k";
const BOTH: [(&SupportedProtocolVersion, ProtocolVersion); 2] = [
    (&TLS12, ProtocolVersion::TLSv1_2),
    (&TLS13, ProtocolVersion::TLSv1_3),
];

fn send(client: &mut Client, call: &Call) -> Reply {
    client.write(&call.bytes());
    client.read_reply(&call.method)
}

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

#[test]
fn objects_come_and_go_over_both_versions_of_tls() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    for (version, agreed) in BOTH {
        let tls = tls_client(&authority.ca(), None, &[version]);
        let mut client = Client::connect_tls(world.gateway.addr, "localhost", tls);
        for length in [0, 1, 16_384, 1 << 20] {
            let object = object(length);
            send(&mut client, &world.signed("PUT", KEY).body(object.clone())).assert_ok();
            let reply = send(&mut client, &world.signed("GET", KEY));
            assert!(reply.assert_ok().body == object, "{agreed:?} {length}");
        }
        send(&mut client, &world.signed("GET", "/photos/globex/k"))
            .assert_error(403, "AccessDenied");
        assert_eq!(client.tls_version(), Some(agreed));
    }
}

#[test]
fn an_unsigned_trailer_upload_is_stored_plain_or_not_at_all() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let object = object(300_000);
    let upload = |version, checksummed: &[u8]| {
        let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, checksummed);
        let crc = BASE64_STANDARD.encode(u32::try_from(crc).unwrap().to_be_bytes());
        let head = format!("{:x}\r\n", object.len());
        let trailer = format!("\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n");
        let call = world
            .signed("PUT", KEY)
            .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .header("x-amz-decoded-content-length", &object.len().to_string())
            .body([head.as_bytes(), &object, trailer.as_bytes()].concat());
        let tls = tls_client(&authority.ca(), None, &[version]);
        let mut client = Client::connect_tls(world.gateway.addr, "localhost", tls);
        (send(&mut client, &call), crc)
    };
    for (version, _) in BOTH {
        let (reply, _) = upload(version, b"another");
        reply.assert_error(400, "BadDigest");
        assert!(!world.emulator.object_exists(BUCKET, STORED));
    }
    for (version, _) in BOTH {
        let (reply, crc) = upload(version, &object);
        assert_eq!(
            reply.assert_ok().header("x-amz-checksum-crc32"),
            Some(&*crc)
        );
        assert!(world.emulator.object_bytes(BUCKET, STORED) == Some(object.clone()));
    }
}

#[test]
fn a_client_authority_admits_its_own_clients_only() {
    let (authority, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let world = authority.serve(&format!("client_ca = '{}'\n", authority.ca().display()));
    let (good, bad) = (authority.pair("client"), foreign.pair("client"));
    for (version, agreed) in BOTH {
        let connect = |identity: Option<&(PathBuf, PathBuf)>| {
            let identity = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
            let tls = tls_client(&authority.ca(), identity, &[version]);
            Client::connect_tls(world.gateway.addr, "localhost", tls)
        };
        let served = world.upstream_requests();
        for (identity, alert) in [
            (None, AlertDescription::CertificateRequired),
            (Some(&bad), AlertDescription::UnknownCA),
        ] {
            let mut client = connect(identity);
            client.write(&world.signed("GET", KEY).bytes());
            let error = client.try_fill().unwrap_err();
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            assert_eq!(
                cause,
                Some(&rustls::Error::AlertReceived(alert)),
                "{agreed:?}: {error}"
            );
        }
        assert_eq!(world.upstream_requests(), served);
        let mut client = connect(Some(&good));
        send(&mut client, &world.signed("PUT", KEY).body("mine")).assert_ok();
        assert_eq!(client.tls_version(), Some(agreed));
    }
}

#[test]
fn a_client_that_speaks_no_tls_or_trusts_another_authority_gets_nothing() {
    let (authority, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let world = authority.serve("");
    let mut plain = Client::connect(world.gateway.addr);
    plain.write(&world.signed("GET", KEY).bytes());
    assert!(plain.closes_within(support::PATIENCE));
    let tls = tls_client(&foreign.ca(), None, &[&TLS13]);
    let mut wary = Client::connect_tls(world.gateway.addr, "localhost", tls);
    wary.write(&world.signed("GET", KEY).bytes());
    assert!(!wary.fill());
    assert_eq!(world.upstream_requests(), 0);
}
