//! The TLS listener: both versions, uploads as SDKs send them over HTTPS, client certificates.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::PathBuf;
use std::time::Duration;

use crate::support::http2::Http2;
use crate::support::{
    self, ACME, Authority, BUCKET, Call, Client, GLOBEX, Log, Reply, World, tls_client,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ProtocolVersion, SupportedProtocolVersion};

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
fn serves_both_tls_versions() {
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
fn stores_unsigned_trailer_uploads_only_if_valid() {
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
fn accepts_only_clients_of_the_authority() {
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

/// The alert that a client reads after it has sent a large request at once.
fn alert_of_refusal(
    world: &World,
    authority: &Authority,
    identity: Option<&(PathBuf, PathBuf)>,
    version: &'static SupportedProtocolVersion,
) -> Result<AlertDescription, String> {
    let identity = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
    let tls = tls_client(&authority.ca(), identity, &[version]);
    let mut client = Client::connect_tls(world.gateway.addr, "localhost", tls);
    client.write(&world.signed("PUT", KEY).body(object(200_000)).bytes());
    std::thread::sleep(Duration::from_millis(100));
    loop {
        match client.try_fill() {
            Ok(0) => return Err("the end, without an alert".to_owned()),
            Ok(_) => {}
            Err(error) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
                return match cause {
                    Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
                    _ => Err(error.to_string()),
                };
            }
        }
    }
}

#[test]
fn refused_certificate_gets_an_alert_and_a_log_line() {
    let log = Log::of_program();
    let (authority, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let revoked = authority.named("revoked", "spiffe://revoked", 2100);
    let list = authority.revoke(&[&revoked.0], 2100);
    let world = authority.serve(&format!(
        "client_ca = '{}'\nclient_crl = '{}'\n",
        authority.ca().display(),
        list.display()
    ));
    let expired = authority.named("old", "spiffe://old", 2001);
    let stranger = foreign.pair("client");
    for (identity, alert, reason) in [
        (
            None,
            AlertDescription::CertificateRequired,
            "certificate_missing",
        ),
        (
            Some(&expired),
            AlertDescription::CertificateExpired,
            "certificate_expired",
        ),
        (
            Some(&revoked),
            AlertDescription::CertificateRevoked,
            "certificate_revoked",
        ),
        (
            Some(&stranger),
            AlertDescription::UnknownCA,
            "certificate_unknown_authority",
        ),
    ] {
        for (version, agreed) in BOTH {
            let read = alert_of_refusal(&world, &authority, identity, version);
            assert_eq!(read, Ok(alert), "{reason} {agreed:?}");
        }
        let counted = || {
            let name = "cosgate_tls_handshake_failures_total";
            world.gateway.metric(name, reason) == 2
        };
        support::eventually(reason, counted);
        log.assert_contains(&format!(
            "a client's certificate is refused cause=\"{reason}\""
        ));
    }
    assert_eq!(world.upstream_requests(), 0);
    let good = authority.pair("client");
    let mut client = connect(&world, &authority, Some(&good));
    send(&mut client, &world.signed("PUT", KEY).body("mine")).assert_ok();
}

#[test]
fn counts_handshake_failures_by_reason() {
    let (authority, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let limits = "[server.limits]\ntls_handshake_timeout = \"1s\"\n";
    let world = World::with(&(authority.tls("") + limits));
    let mut plain = Client::connect(world.gateway.addr);
    plain.write(&world.signed("GET", KEY).bytes());
    let tls = tls_client(&foreign.ca(), None, &[&TLS13]);
    let mut wary = Client::connect_tls(world.gateway.addr, "localhost", tls);
    wary.write(b"x");
    let gone = Client::connect(world.gateway.addr);
    drop(gone);
    let mut silent = Client::connect(world.gateway.addr);
    assert!(silent.closes_within(support::PATIENCE));
    for reason in ["not_tls", "client_alert", "closed", "timeout"] {
        support::eventually(reason, || {
            let name = "cosgate_tls_handshake_failures_total";
            world.gateway.metric(name, reason) == 1
        });
    }
}

#[test]
fn reloads_and_expires_revocation_lists() {
    let log = Log::of_program();
    let authority = Authority::new("ours");
    let acme = authority.pair("acme.example");
    let list = authority.revoke(&[], 2100);
    let world = known_by_certificate(
        &authority,
        &format!("client_crl = '{}'\n", list.display()),
        "",
    );
    let is_served = || {
        let mut client = connect(&world, &authority, Some(&acme));
        client.write(&unsigned(&world, "PUT", KEY).body("x").bytes());
        client.fill()
    };
    assert!(is_served());
    authority.revoke(&[&acme.0], 2100);
    support::eventually("the certificate is refused", || !is_served());
    std::fs::write(&list, "-----BEGIN nothing-----").unwrap();
    log.assert_contains("cannot be read: the last one stays in use");
    assert!(!is_served(), "the last list stays");
    authority.revoke(&[], 2100);
    support::eventually("the certificate is taken back", is_served);
    authority.revoke(&[], 2002);
    support::eventually("the list is past its time", || !is_served());
    let alert = alert_of_refusal(&world, &authority, Some(&acme), &TLS13);
    assert!(alert.is_ok(), "{alert:?}");
    let reason = || {
        let name = "cosgate_tls_handshake_failures_total";
        world.gateway.metric(name, "crl_unusable") >= 1
    };
    support::eventually("it is counted", reason);
}

#[test]
fn rejects_plain_and_distrusting_clients() {
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

/// cosgate that identifies acme by a DNS name or a URI, and globex by its common name. `more` contains keys of
/// `[server.tls]`, and `acme` keys of acme.
fn known_by_certificate(authority: &Authority, more: &str, acme: &str) -> World {
    let (cert, key) = authority.pair("localhost");
    World::edited(|toml| {
        let toml = toml
            .replacen("[tenants.acme]", &format!("[tenants.acme]\nclient_certs = [\"san:dns:Acme.example\", \"san:uri:spiffe://acme/web\"]\n{acme}"), 1)
            .replacen("[tenants.globex]", "[tenants.globex]\nclient_certs = [\"subject:CN=globex, inc\"]", 1);
        format!(
            "{toml}\n[server.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n{more}",
            cert.display(),
            key.display(),
            authority.ca().display()
        )
    })
}

fn connect(world: &World, authority: &Authority, identity: Option<&(PathBuf, PathBuf)>) -> Client {
    let identity = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
    let tls = tls_client(&authority.ca(), identity, &[&TLS13, &TLS12]);
    Client::connect_tls(world.gateway.addr, "localhost", tls)
}

fn unsigned(world: &World, method: &str, target: &str) -> Call {
    Call::new(world.gateway.addr, method, target)
}

#[test]
fn certificate_identifies_its_tenant() {
    let authority = Authority::new("ours");
    let world = known_by_certificate(&authority, "", "");
    let (acme, globex) = ("/photos/acme/k", "/photos/globex/k");
    for (identity, own, other) in [
        (authority.pair("acme.example"), acme, globex),
        (
            authority.named("web", "spiffe://acme/web", 2100),
            acme,
            globex,
        ),
        (
            authority.named("globex, inc", "spiffe://other", 2100),
            globex,
            acme,
        ),
    ] {
        let mut client = connect(&world, &authority, Some(&identity));
        send(&mut client, &unsigned(&world, "PUT", own).body("mine")).assert_ok();
        assert_eq!(
            send(&mut client, &unsigned(&world, "GET", own))
                .assert_ok()
                .text(),
            "mine"
        );
        let refused = send(&mut client, &unsigned(&world, "GET", other));
        refused.assert_error(403, "AccessDenied");
        // The certificate gives no access to the anonymous tenant, and a web page cannot use it.
        let public = send(&mut client, &unsigned(&world, "GET", "/photos/public/k"));
        public.assert_error(403, "AccessDenied");
        let page = unsigned(&world, "GET", own).header("origin", "https://evil.example");
        send(&mut client, &page).assert_error(403, "AccessDenied");
        let link = unsigned(
            &world,
            "GET",
            &format!("{own}?response-content-type=text/html"),
        );
        send(&mut client, &link).assert_error(400, "InvalidRequest");
        // A signature decides, whether valid or not.
        let signed = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
        send(&mut client, &signed).assert_error(404, "NoSuchKey");
        let wrong = Call::new(world.gateway.addr, "GET", own).signed_by((ACME.0, "wrong"));
        send(&mut client, &wrong).assert_error(403, "SignatureDoesNotMatch");
        assert!(
            send(&mut client, &unsigned(&world, "GET", own))
                .assert_ok()
                .text()
                == "mine"
        );
    }
    world
        .gateway
        .log
        .assert_contains("\"identity\":\"certificate\",\"key_id\":\"san:dns:acme.example\"");
    world
        .gateway
        .log
        .assert_contains("\"key_id\":\"subject:CN=globex, inc\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_identifies_its_tenant_over_http2() {
    let authority = Authority::new("ours");
    let world = known_by_certificate(&authority, "", "require_client_cert = true");
    let addr = world.gateway.addr;
    let acme = authority.pair("acme.example");
    let acme = Http2::certified(&authority, addr, &acme).await;
    let put = unsigned(&world, "PUT", KEY).body("mine");
    acme.send(&put).await.assert_ok();
    let get = unsigned(&world, "GET", "/photos/globex/k");
    acme.send(&get).await.assert_error(403, "AccessDenied");
    acme.send(&world.signed("GET", KEY)).await.assert_ok();
    let globex = authority.named("globex, inc", "spiffe://other", 2100);
    let globex = Http2::certified(&authority, addr, &globex).await;
    for call in [unsigned(&world, "GET", KEY), world.signed("GET", KEY)] {
        let reply = globex.send(&call).await;
        reply.assert_error(403, "AccessDenied");
    }
    // A form without the certificate is refused too.
    let nobody = unsigned(&world, "POST", "/photos")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(
            "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nacme/form\r\n--b\r\n\
             Content-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n",
        );
    let refused = globex.send(&nobody).await;
    refused.assert_error(403, "AccessDenied");
    assert_eq!(acme.send(&nobody).await.status, 204);
    world
        .gateway
        .log
        .assert_contains("\"identity\":\"certificate\",\"key_id\":\"san:dns:acme.example\"");
}

#[test]
fn unknown_certificate_identifies_no_tenant() {
    let authority = Authority::new("ours");
    let world = known_by_certificate(&authority, "", "");
    for identity in [
        authority.pair("other.example"),
        authority.named("globex", "spiffe://acme/web/x", 2100),
        authority.named("acme.example", "spiffe://acme", 2100),
        // A certificate of two tenants identifies neither.
        authority.named("globex, inc", "spiffe://acme/web", 2100),
    ] {
        let mut client = connect(&world, &authority, Some(&identity));
        send(&mut client, &unsigned(&world, "GET", KEY)).assert_error(403, "AccessDenied");
        send(&mut client, &world.signed("GET", KEY)).assert_error(404, "NoSuchKey");
    }
    let expired = authority.named("old", "spiffe://acme/web", 2001);
    let mut client = connect(&world, &authority, Some(&expired));
    client.write(&unsigned(&world, "GET", KEY).bytes());
    assert!(!client.fill());
}

#[test]
fn logs_the_names_of_an_unknown_certificate() {
    let authority = Authority::new("ours");
    let (cert, key) = authority.pair("localhost");
    let world = World::edited(|toml| {
        let key_of_anyone =
            "access_keys = [{ id = \"ANYONEKEY00000000001\", secret = \"a-secret\" }]";
        let toml = toml
            .replacen("anonymous = true", key_of_anyone, 1)
            .replacen("[tenants.acme]", "[tenants.acme]\nrequire_client_cert = true\nclient_certs = [\"san:dns:acme.example\"]", 1);
        format!(
            "{toml}\n[server.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n",
            cert.display(),
            key.display(),
            authority.ca().display()
        )
    });
    let other = authority.named("acme, inc", "spiffe://acme/web", 2100);
    let mut client = connect(&world, &authority, Some(&other));
    let refused = send(&mut client, &unsigned(&world, "GET", KEY));
    refused.assert_error(403, "AccessDenied");
    let text = refused.text();
    let shown = "the client certificate belongs to no tenant";
    assert!(
        text.contains(shown) && !text.contains("anonymous"),
        "{text}"
    );
    assert!(!text.contains("spiffe"), "{text}");
    let names = "client certificate's names: san:uri:spiffe://acme/web, subject:CN=acme, inc";
    world.gateway.log.assert_contains(names);
    // The same beside a valid key, if the tenant requires both.
    let signed = send(&mut client, &world.signed("GET", KEY));
    signed.assert_error(403, "AccessDenied");
    let both = format!(
        "no certificate of the tenant acme; no tenant, or more than one, is known by the {names}"
    );
    world.gateway.log.assert_contains(&both);
}

#[test]
fn requires_certificates_per_tenant() {
    let authority = Authority::new("ours");
    let world = known_by_certificate(
        &authority,
        "client_auth = \"optional\"\n",
        "require_client_cert = true",
    );
    let globex =
        |method: &str| Call::new(world.gateway.addr, method, "/photos/globex/k").signed_by(GLOBEX);
    let mut nobody = connect(&world, &authority, None);
    send(&mut nobody, &globex("PUT").body("x")).assert_ok();
    let served = world.upstream_requests();
    for presigned in [false, true] {
        let call = world.signed("GET", KEY);
        let call = if presigned { call.presigned(60) } else { call };
        send(&mut nobody, &call).assert_error(403, "AccessDenied");
        let other = authority.named("globex, inc", "spiffe://other", 2100);
        let mut other = connect(&world, &authority, Some(&other));
        send(&mut other, &call).assert_error(403, "AccessDenied");
    }
    assert_eq!(world.upstream_requests(), served);
    let own = authority.pair("acme.example");
    let mut own = connect(&world, &authority, Some(&own));
    send(&mut own, &world.signed("PUT", KEY).body("x")).assert_ok();
    send(&mut own, &unsigned(&world, "GET", KEY)).assert_ok();
    world
        .gateway
        .log
        .assert_contains("no certificate of the tenant acme");
}

#[test]
fn tls_sessions_do_not_skip_certificate_checks() {
    let authority = Authority::new("ours");
    let world = known_by_certificate(&authority, "", "");
    let (cert, key) = authority.pair("acme.example");
    for (version, _) in BOTH {
        let tls = tls_client(&authority.ca(), Some((&cert, &key)), &[version]);
        for _ in 0..2 {
            let mut client = Client::connect_tls(world.gateway.addr, "localhost", tls.clone());
            send(&mut client, &unsigned(&world, "PUT", KEY).body("x")).assert_ok();
            assert_eq!(client.tls_handshake(), Some(rustls::HandshakeKind::Full));
        }
    }
}
