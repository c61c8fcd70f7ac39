//! COS and STS over TLS, with a certificate that the emulator makes or is given.

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{BUCKET, Reply, TestRequest, account, connect};
use crate::product::Killed;

const HOST: &str = "b-1250000000.cos.ap-guangzhou.myqcloud.com";

/// A connection whose handshake has succeeded: the peer has a certificate of `ca` for `name`.
fn connect_tls(
    to: SocketAddr,
    ca: &str,
    name: &str,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = connect(to);
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(tls, socket))
}

fn send(request: &TestRequest, to: SocketAddr, ca: &str, name: &str) -> Reply {
    let mut stream = connect_tls(to, ca, name).unwrap();
    stream
        .write_all(&[request.head(), request.body.clone()].concat())
        .unwrap();
    Reply::read(&mut stream, false).unwrap()
}

fn certificates(folder: &Path) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .arg("certs")
        .arg(folder)
        .args(["--name", "*.cos.ap-guangzhou.myqcloud.com"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::read_to_string(folder.join("ca.pem")).unwrap()
}

#[test]
fn makes_a_certificate_for_all_its_names() {
    let data = tempfile::tempdir().unwrap();
    let more = ["--tls", "--tls-name", "emulator.test"];
    let elsewhere = ["--bucket", "far-1250000000:ap-elsewhere"];
    let emulator = Killed::start(data.path(), &[&more[..], &elsewhere].concat());
    let ca = emulator.line["ca"].as_str().unwrap();
    let file = emulator.line["ca_file"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), ca);
    for listener in ["cos", "sts"] {
        let url = emulator.line[listener].as_str().unwrap();
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        for name in [
            HOST,
            "any-1250000000.cos.na-ashburn.myqcloud.com",
            "far-1250000000.cos.ap-elsewhere.myqcloud.com",
            "cos.ap-beijing.myqcloud.com",
            "service.cos.myqcloud.com",
            "sts.tencentcloudapi.com",
            "sts.ap-shanghai.tencentcloudapi.com",
            "127.0.0.1",
            "localhost",
            "emulator.test",
        ] {
            let connected = connect_tls(emulator.address(listener), ca, name);
            assert!(connected.is_ok(), "{listener} {name}: {connected:?}");
        }
        let connected = connect_tls(emulator.address(listener), ca, "cos.example.com");
        assert!(connected.is_err(), "{listener}");
    }
    let (cos, sts) = (emulator.address("cos"), emulator.address("sts"));
    let content = "content ".repeat(50_000);
    let put = TestRequest::new("PUT", "/k").body(content.as_str());
    assert_eq!(send(&put.s3(&account()), cos, ca, HOST).status, 200);
    let get = TestRequest::new("GET", "/k").cos(&account());
    assert_eq!(send(&get, cos, ca, HOST).text(), content);
    let call = TestRequest::new("POST", "/").body("{}");
    let refused = send(&call, sts, ca, "sts.tencentcloudapi.com").text();
    assert!(refused.contains("\"Error\""), "{refused}");
    assert!(get.try_send(cos).is_none(), "it has no TLS");
    let health = TestRequest::new("GET", "/health").header("host", "localhost");
    assert_eq!(health.send(emulator.address("admin")).text(), "ok\n");
}

#[test]
fn faults_reset_tls_connections() {
    let data = tempfile::tempdir().unwrap();
    let emulator = Killed::start(data.path(), &["--tls"]);
    let ca = emulator.line["ca"].as_str().unwrap();
    let cos = emulator.address("cos");
    let put = TestRequest::new("PUT", "/k").body(vec![b'x'; 100_000]);
    assert_eq!(send(&put.s3(&account()), cos, ca, HOST).status, 200);
    let faults = TestRequest::new("PUT", "/faults")
        .header("host", "localhost")
        .body(r#"{"cos": {"reset-after-sent": 1000}}"#);
    assert_eq!(faults.send(emulator.address("admin")).status, 200);
    let mut stream = connect_tls(cos, ca, HOST).unwrap();
    let get = TestRequest::new("GET", "/k").s3(&account());
    stream.write_all(&get.head()).unwrap();
    let mut received = Vec::new();
    let end = io::Read::read_to_end(&mut stream, &mut received).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{end}");
    let head = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    assert_eq!(received.len() - head - 4, 1000);
}

#[test]
fn uses_the_given_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let (ca, other_ca) = (certificates(&ours), certificates(&theirs));
    let path = |folder: &Path, file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (cert, key) = (path(&ours, "server.pem"), path(&ours, "server.key"));
    let given = ["--tls-cert", &cert, "--tls-key", &key];
    let emulator = Killed::start(&folder.path().join("data"), &given);
    assert!(emulator.line.get("ca").is_none(), "{}", emulator.line);
    let list = TestRequest::new("GET", "/").s3(&account());
    let listed = send(&list, emulator.address("cos"), &ca, HOST);
    assert_eq!(listed.element("Name").unwrap(), BUCKET);
    assert!(connect_tls(emulator.address("cos"), &other_ca, HOST).is_err());

    let refused = |more: &[&str]| -> (Option<i32>, String) {
        let command = Command::new(env!("CARGO_BIN_EXE_cosgate"))
            .args(["emulator", "--cos", "127.0.0.1:0", "--sts", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .args(more)
            .output();
        let Output { status, stderr, .. } = command.unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let other_key = path(&theirs, "server.key");
    let (status, error) = refused(&["--tls-cert", &cert, "--tls-key", &other_key]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains(&cert) && error.contains(&other_key),
        "{error}"
    );
    for wrong in [
        &["--tls-cert", &cert][..],
        &["--tls-key", &key],
        &["--tls-name", "emulator.test"],
        &["--tls", "--tls-cert", &cert, "--tls-key", &key],
    ] {
        assert_eq!(refused(wrong).0, Some(2), "{wrong:?}");
    }
}
