//! The emulator in tests of other projects: path style, a seed, snapshots, accounts, restarts and kills.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cosgate::emulator::{Emulator, EmulatorAccount, EmulatorConfig, EmulatorRole, Fsync};
use cosgate::secret::Secret;
use serde_json::{Value, json};

use crate::client::{
    BUCKET, Credential, ID, OTHER, TestRequest, account, emulator, emulator_with, now, policy, sts,
};

fn request(method: &'static str, host: &str, target: &str) -> TestRequest {
    TestRequest::new(method, target).header("host", host)
}

#[test]
fn path_style_accepts_any_host() {
    let emulator = emulator_with(EmulatorConfig {
        path_style: true,
        ..EmulatorConfig::default()
    });
    let host = emulator.cos_addr().to_string();
    let send = |request: TestRequest| request.s3(&account()).send(emulator.cos_addr());
    let path = |rest: &str| format!("/{BUCKET}{rest}");
    let put = send(request("PUT", &host, &path("/a%20b/c")).body("content"));
    assert_eq!(put.status, 200);
    assert_eq!(
        send(request("GET", &host, &path("/a%20b/c"))).text(),
        "content"
    );
    let listed = send(request(
        "GET",
        &host,
        &path("/?list-type=2&prefix=a%20b%2F"),
    ));
    assert_eq!(listed.elements("Key"), ["a b/c"]);
    let listed = send(request("GET", "localhost:9100", &path("?list-type=2")));
    assert_eq!(listed.elements("Key"), ["a b/c"]);
    assert!(
        send(request("GET", &host, "/"))
            .elements("Name")
            .contains(&BUCKET.to_owned())
    );
    let status = "<VersioningConfiguration></VersioningConfiguration>";
    assert_eq!(
        send(request("GET", &host, &path("/?versioning"))).text(),
        status
    );
    let copied =
        request("PUT", &host, &path("/copy")).header("x-amz-copy-source", &path("/a%20b/c"));
    assert_eq!(send(copied).status, 200);
    assert_eq!(emulator.object_bytes(BUCKET, "copy").unwrap(), b"content");
    let delete = "<Delete><Object><Key>copy</Key></Object></Delete>";
    let md5 = "fjrcxLyYjg4c5F3ukfVeEQ==";
    let many = request("POST", &host, &path("/?delete"))
        .header("content-md5", md5)
        .body(delete);
    assert_eq!(send(many).status, 200);
    assert!(!emulator.object_exists(BUCKET, "copy"));
    // COS's own hosts still work, and so does the native signature.
    assert_eq!(send(TestRequest::new("GET", "/a%20b/c")).text(), "content");
    let native = request("GET", &host, &path("/a%20b/c")).cos(&account());
    assert_eq!(native.send(emulator.cos_addr()).text(), "content");
    let made = send(request("PUT", &host, "/new-1250000000").body(""));
    assert_eq!(made.status, 200);
    let region = send(request("GET", &host, "/new-1250000000?location"));
    assert!(region.text().contains("ap-guangzhou"), "{}", region.text());
    let none = send(request("GET", &host, "/none-1250000000/k"));
    assert_eq!(none.refusal(), (404, "NoSuchBucket".into()));
}

#[test]
fn rejects_path_style_by_default() {
    let emulator = emulator();
    let send = |host: &str| {
        let get = request("GET", host, &format!("/{BUCKET}/k")).s3(&account());
        get.send(emulator.cos_addr()).refusal()
    };
    assert_eq!(send("127.0.0.1"), (404, "NoSuchBucket".into()));
    let refusal = send("cos.ap-guangzhou.myqcloud.com");
    assert_eq!(refusal, (403, "PathStyleDomainForbidden".into()));
}

#[test]
fn deletes_only_empty_buckets() {
    let emulator = emulator();
    let host = format!("{OTHER}.cos.ap-guangzhou.myqcloud.com");
    let delete = || {
        request("DELETE", &host, "/")
            .s3(&account())
            .send(emulator.cos_addr())
    };
    emulator.put_object(OTHER, "k", b"x").unwrap();
    assert_eq!(delete().refusal(), (409, "BucketNotEmpty".into()));
    emulator.empty_bucket(OTHER).unwrap();
    emulator.create_upload(OTHER, "k").unwrap();
    assert_eq!(delete().refusal(), (409, "BucketNotEmpty".into()));
    emulator.empty_bucket(OTHER).unwrap();
    assert_eq!(delete().status, 204);
    assert_eq!(delete().refusal(), (404, "NoSuchBucket".into()));
    let key = limited(&emulator, &account(), "name/cos:GetObject");
    let denied = TestRequest::new("DELETE", "/")
        .s3(&key)
        .send(emulator.cos_addr());
    assert_eq!(denied.refusal(), (403, "AccessDenied".into()));
}

/// A temporary key that allows one action.
fn limited(emulator: &Emulator, by: &Credential, action: &str) -> Credential {
    let body = crate::client::federation(&policy(&[action], &[&format!("{BUCKET}/*")]));
    let (_, json) = sts(emulator.sts_addr(), by, "GetFederationToken", &body, now());
    credential(&json)
}

fn credential(json: &Value) -> Credential {
    let field = |name: &str| json["Credentials"][name].as_str().unwrap().to_owned();
    Credential {
        id: field("TmpSecretId"),
        secret: Secret::new(field("TmpSecretKey")),
        token: Some(field("Token")),
    }
}

fn seed_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in [
        ("photos/2026/a b.jpg", "photo"),
        ("photos/index.html", "page"),
        ("logs-1250000000/x", "log"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

#[test]
fn seed_fills_buckets_and_keeps_existing_objects() {
    let (seed, data) = (seed_folder(), tempfile::tempdir().unwrap());
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(data.path().into()),
            seed: Some(seed.path().into()),
            ..EmulatorConfig::default()
        })
    };
    let first = start();
    let bucket = "photos-1250000000";
    assert_eq!(first.object_keys(bucket), ["2026/a b.jpg", "index.html"]);
    assert_eq!(
        first.object_bytes(bucket, "2026/a b.jpg").unwrap(),
        b"photo"
    );
    assert_eq!(first.object_keys("logs-1250000000"), ["x"]);
    first.put_object(bucket, "index.html", b"changed").unwrap();
    drop(first);
    let second = start();
    assert_eq!(
        second.object_bytes(bucket, "index.html").unwrap(),
        b"changed"
    );
    std::fs::write(seed.path().join("stray"), "x").unwrap();
    let error = Emulator::start(EmulatorConfig {
        seed: Some(seed.path().into()),
        ..EmulatorConfig::default()
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("put the file into one")
    );
}

#[test]
fn reset_restores_the_start_or_the_snapshot() {
    let seed = seed_folder();
    let admin = Some(([127, 0, 0, 1], 0).into());
    let emulator = emulator_with(EmulatorConfig {
        seed: Some(seed.path().into()),
        admin_listen: admin,
        ..EmulatorConfig::default()
    });
    let post = |target: &str| {
        let admin = emulator.admin_addr().unwrap();
        request("POST", "localhost", target).send(admin).status
    };
    let bucket = "photos-1250000000";
    let upload = emulator.create_upload(bucket, "begun").unwrap();
    emulator
        .put_object(bucket, "index.html", b"changed")
        .unwrap();
    emulator.put_object(BUCKET, "k", b"x").unwrap();
    assert_eq!(post("/reset"), 200);
    assert_eq!(
        emulator.object_bytes(bucket, "index.html").unwrap(),
        b"page"
    );
    assert!(emulator.object_keys(BUCKET).is_empty());
    assert!(emulator.uploads(bucket).is_empty(), "{upload}");

    emulator.put_object(BUCKET, "k", b"kept").unwrap();
    assert_eq!(post("/snapshot"), 200);
    for _ in 0..2 {
        emulator.put_object(BUCKET, "k", b"x").unwrap();
        emulator.empty_bucket(bucket).unwrap();
        let get = TestRequest::new("GET", "/k").s3(&account());
        assert_eq!(get.send(emulator.cos_addr()).text(), "x");
        assert_eq!(post("/reset"), 200);
        assert_eq!(get.send(emulator.cos_addr()).text(), "kept");
        assert_eq!(emulator.object_keys(bucket).len(), 2);
    }
    let admin = emulator.admin_addr().unwrap();
    assert_eq!(
        request("GET", "localhost", "/health").send(admin).status,
        200
    );
    assert_eq!(
        request("POST", "rebound.example", "/reset")
            .send(admin)
            .status,
        421
    );
}

#[test]
fn data_folder_has_only_explicit_snapshots() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(data.path().into()),
            ..EmulatorConfig::default()
        })
    };
    let first = start();
    assert!(!first.reset().unwrap());
    first.put_object(BUCKET, "k", b"kept").unwrap();
    first.snapshot().unwrap();
    first.put_object(BUCKET, "k", b"changed").unwrap();
    drop(first);
    // The process was killed between the two renames of a reset.
    std::fs::rename(
        data.path().join("buckets"),
        data.path().join("buckets.next"),
    )
    .unwrap();
    let second = start();
    assert_eq!(second.object_bytes(BUCKET, "k").unwrap(), b"changed");
    assert!(second.reset().unwrap());
    assert_eq!(second.object_bytes(BUCKET, "k").unwrap(), b"kept");
}

#[test]
fn isolates_accounts() {
    const ROLE: &str = "qcs::cam::uin/100000000002:roleName/app";
    let theirs = "theirs-1260000000";
    let emulator = emulator_with(EmulatorConfig {
        accounts: vec![EmulatorAccount {
            appid: "1260000000".into(),
            keys: vec![("AKIDother".into(), Secret::new("other-secret"))],
            roles: vec![EmulatorRole {
                arn: ROLE.into(),
                external_id: None,
                web_identity: None,
            }],
        }],
        ..EmulatorConfig::default()
    });
    let other = Credential {
        id: "AKIDother".into(),
        secret: Secret::new("other-secret"),
        token: None,
    };
    let host = |bucket: &str| format!("{bucket}.cos.ap-guangzhou.myqcloud.com");
    let send = |request: TestRequest, by: &Credential| request.s3(by).send(emulator.cos_addr());
    let make = request("PUT", &host(theirs), "/").body("");
    assert_eq!(send(make.clone(), &account()).refusal().0, 403);
    assert_eq!(send(make, &other).status, 200);
    let put = |bucket: &str| request("PUT", &host(bucket), "/k").body("x");
    for (bucket, by, status) in [
        (BUCKET, &account(), 200),
        (BUCKET, &other, 403),
        (theirs, &other, 200),
        (theirs, &account(), 403),
    ] {
        assert_eq!(send(put(bucket), by).status, status, "{bucket} {}", by.id);
        let get = request("GET", &host(bucket), "/k");
        assert_eq!(send(get, by).status, status, "{bucket} {}", by.id);
    }
    let stolen = put(theirs)
        .header("x-amz-copy-source", &format!("/{BUCKET}/k"))
        .body("");
    assert_eq!(send(stolen, &other).refusal().0, 403);
    let list = || request("GET", "service.cos.myqcloud.com", "/");
    assert_eq!(send(list(), &other).elements("Name"), [theirs]);
    assert_eq!(send(list(), &account()).elements("Name"), [BUCKET, OTHER]);
    // A role belongs to its own account, and so do its keys.
    let body = json!({"RoleArn": ROLE, "RoleSessionName": "app"});
    let assume = |by: &Credential| sts(emulator.sts_addr(), by, "AssumeRole", &body, now()).1;
    assert_eq!(assume(&account())["Error"]["Code"], "UnauthorizedOperation");
    let key = credential(&assume(&other));
    assert_eq!(send(put(theirs), &key).status, 200);
    assert_eq!(send(put(BUCKET), &key).status, 403);
}

/// The program itself, which can be killed.
pub(crate) struct Killed {
    child: Child,
    pub(crate) line: Value,
}

impl Killed {
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cosgate"))
            .args([
                "emulator",
                "--json",
                "--cos",
                "127.0.0.1:0",
                "--sts",
                "127.0.0.1:0",
            ])
            .args([
                "--admin",
                "127.0.0.1:0",
                "--bucket",
                &format!("{BUCKET}:ap-guangzhou"),
            ])
            .args([
                "--secret-id",
                ID,
                "--secret-key-env",
                "EMULATOR_SECRET",
                "--data",
            ])
            .arg(data)
            .args(more)
            .env("EMULATOR_SECRET", account().secret.expose())
            .env("TMPDIR", data) // what a killed process leaves is removed with it
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let line = serde_json::from_str(&line).unwrap();
        Self { child, line }
    }

    fn cos(&self) -> SocketAddr {
        self.address("cos")
    }

    /// The address of a listener, whatever its scheme is.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let url = self.line[listener].as_str().unwrap();
        url.split_once("://").unwrap().1.parse().unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }
}

#[test]
fn kill_loses_no_acknowledged_write() {
    const ROUND: usize = 20;
    let data = tempfile::tempdir().unwrap();
    let content = |key: &str| format!("{key} ").repeat(2000);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4 {
        let more: &[&str] = if round == 3 {
            &["--fsync", "always"]
        } else {
            &[]
        };
        let emulator = Killed::start(data.path(), more);
        let cos = emulator.cos();
        let kept = acknowledged.iter().filter(|key| {
            let get = TestRequest::new("GET", &format!("/{key}")).s3(&account());
            get.send(cos).text() == content(key)
        });
        assert_eq!(kept.count(), acknowledged.len());
        let (stopped, stored) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let (stopped, stored) = (&stopped, &stored);
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for number in 0.. {
                            let key = format!("{round}-{writer}-{number}");
                            let put = TestRequest::new("PUT", &format!("/{key}"));
                            let put = put.body(content(&key)).s3(&account());
                            if stopped.load(Ordering::Relaxed) {
                                break;
                            }
                            match std::net::TcpStream::connect(cos) {
                                Ok(_) => {}
                                Err(_) => break,
                            }
                            match put.try_send(cos) {
                                Some(reply) if reply.status == 200 => {
                                    stored.fetch_add(1, Ordering::Relaxed);
                                    done.push(key);
                                }
                                _ => break,
                            }
                        }
                        done
                    })
                })
                .collect();
            // Until each writer is busy, however slow the machine is.
            for _ in 0..2000 {
                if stored.load(Ordering::Relaxed) >= ROUND {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(emulator);
            stopped.store(true, Ordering::Relaxed);
            let done = writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap());
            acknowledged.extend(done);
        });
    }
    assert!(acknowledged.len() >= 4 * ROUND, "{}", acknowledged.len());
}

#[test]
fn start_removes_unfinished_files() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(data.path().into()),
            fsync: Fsync::Always,
            ..EmulatorConfig::default()
        })
    };
    let first = start();
    first.put_object(BUCKET, "k", b"x").unwrap();
    let upload = first.create_upload(BUCKET, "begun").unwrap();
    drop(first);
    let buckets = data.path().join("buckets");
    let bucket = buckets.join(BUCKET);
    std::fs::create_dir_all(buckets.join("half-1250000000/objects")).unwrap();
    std::fs::create_dir_all(bucket.join("uploads/half")).unwrap();
    std::fs::write(bucket.join("blobs/orphan"), "x").unwrap();
    std::fs::write(data.path().join("tmp/half"), "x").unwrap();
    let second = start();
    assert_eq!(second.object_bytes(BUCKET, "k").unwrap(), b"x");
    assert_eq!(second.uploads(BUCKET), [("begun".to_owned(), upload)]);
    let count = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(count(&bucket.join("blobs")), 1);
    assert_eq!(count(&bucket.join("uploads")), 1);
    assert_eq!(count(&data.path().join("tmp")), 0);
    assert!(!buckets.join("half-1250000000").exists());
}

#[test]
fn prints_one_line_of_json_at_start() {
    let (data, accounts) = (
        tempfile::tempdir().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let text = "[[accounts]]\nappid = \"1260000000\"\nkeys = [{ id = \"AKIDother\", secret = \"other-secret\" }]\nroles = [{ arn = \"qcs::cam::uin/1:roleName/app\" }]\nbuckets = [{ name = \"theirs-1260000000\", region = \"ap-beijing\" }]\n";
    std::fs::write(accounts.path(), text).unwrap();
    let faults = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(
        faults.path(),
        r#"{"faults": [{"service": "sts", "do": "down"}]}"#,
    )
    .unwrap();
    let emulator = Killed::start(
        data.path(),
        &[
            "--accounts",
            accounts.path().to_str().unwrap(),
            "--faults",
            faults.path().to_str().unwrap(),
            "--role",
            "qcs::cam::uin/100000000001:roleName/ci,secret-word",
        ],
    );
    let line = &emulator.line;
    assert_eq!(line["appid"], "1250000000");
    assert_eq!(line["secret_id"], ID);
    assert_eq!(line["secret_key"], Value::Null, "it was given");
    let buckets = json!([
        {"name": BUCKET, "region": "ap-guangzhou"},
        {"name": "theirs-1260000000", "region": "ap-beijing"},
    ]);
    assert_eq!(line["buckets"], buckets);
    let sts: SocketAddr = line["sts"].as_str().unwrap()[7..].parse().unwrap();
    assert!(
        TestRequest::new("POST", "/")
            .body("{}")
            .try_send(sts)
            .is_none()
    );
    let other = Credential {
        id: "AKIDother".into(),
        secret: Secret::new("other-secret"),
        token: None,
    };
    let list = request("GET", "theirs-1260000000.cos.ap-beijing.myqcloud.com", "/").s3(&other);
    assert_eq!(list.send(emulator.cos()).status, 200);
    // An error names the mistake without its line, because the line may contain a secret.
    std::fs::write(accounts.path(), format!("{text}oops = \"very-secret\"\n")).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .args(["emulator", "--accounts", accounts.path().to_str().unwrap()])
        .output()
        .unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        error.contains("oops") && !error.contains("very-secret"),
        "{error}"
    );
}
