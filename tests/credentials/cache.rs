//! The credential cache against a scripted STS on loopback: one call for many requests, renewal in the background,
//! and every failure of an STS.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail anywhere"
)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cosgate::clock::Clock;
use cosgate::config::{Config, Sources};
use cosgate::credentials::{Cache, Entry};
use cosgate::secret::Secret;
use cosgate::sign::tc3::{ApiCall, ApiClaim, ApiClaimError};
use cosgate::timestamp::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const SECRET_KEY: &str = "issuersecretkeyissuersecretkey00";
const TMP_SECRET: &str = "TMPSECRETKEY=";
const POLICY: &str = r#"{"version":"2.0","statement":[]}"#;
/// Maximum wait of a request for a key, with a margin for a slow machine.
const WAIT: Duration = Duration::from_millis(5_900);

/// The response of the STS to a call.
#[derive(Clone)]
enum Reply {
    /// A key with this lifetime in seconds.
    Key(i64),
    /// This error code.
    Error(&'static str),
    /// Status 200 with this body.
    Body(String),
    /// These bytes, and then the connection is closed.
    Raw(&'static str),
    /// Status 200, and then 64 MiB.
    Huge,
    /// No response.
    Hang,
}

/// The scripted STS. It verifies signatures and times as Tencent does.
struct Sts {
    port: u16,
    reply: Mutex<Reply>,
    /// Overrides `reply` for the tenant with this `Name`.
    special: Mutex<Option<(&'static str, Reply)>>,
    calls: AtomicUsize,
    /// The number of floods that were read to their end.
    swallowed: AtomicUsize,
    /// The seconds by which its clock is ahead.
    ahead: AtomicI64,
    delay: Mutex<Duration>,
    start: Instant,
}

impl Sts {
    async fn start(reply: Reply) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sts = Self::at(&listener, reply);
        tokio::spawn({
            let sts = Arc::clone(&sts);
            async move {
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    let sts = Arc::clone(&sts);
                    tokio::spawn(async move { sts.serve(tcp).await });
                }
            }
        });
        sts
    }

    /// [`Sts::start`] over TLS, with a certificate for `sts.test`. Gives the PEM too.
    async fn start_tls(reply: Reply) -> (Arc<Self>, String) {
        let made = rcgen::generate_simple_self_signed(vec!["sts.test".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sts = Self::at(&listener, reply);
        tokio::spawn({
            let sts = Arc::clone(&sts);
            async move {
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        sts.serve(tls).await;
                    }
                }
            }
        });
        (sts, made.cert.pem())
    }

    fn at(listener: &TcpListener, reply: Reply) -> Arc<Self> {
        Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            reply: Mutex::new(reply),
            special: Mutex::default(),
            calls: AtomicUsize::new(0),
            swallowed: AtomicUsize::new(0),
            ahead: AtomicI64::new(0),
            delay: Mutex::default(),
            start: Instant::now(),
        })
    }

    fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The time of the machine on which cosgate runs.
    fn wall(start: Instant) -> Timestamp {
        let passed = i64::try_from(start.elapsed().as_secs()).unwrap();
        Timestamp::from_unix(1_768_480_245 + passed)
    }

    fn now(&self) -> Timestamp {
        Self::wall(self.start).plus(self.ahead.load(Ordering::SeqCst))
    }

    /// A cache for `tenants` with this STS as issuer.
    fn cache(&self, tenants: &[&str]) -> (Cache, Arc<Clock>) {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        self.cache_of(&config(&endpoint, "timeout = \"1s\"", "", tenants))
    }

    fn cache_of(&self, config: &Config) -> (Cache, Arc<Clock>) {
        let start = self.start;
        let clock = Arc::new(Clock::new(move || Self::wall(start)));
        let policies = config.tenants.iter().map(|_| POLICY.to_owned()).collect();
        (Cache::start(config, policies, &clock).unwrap(), clock)
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Some((head, body)) = read_request(&mut stream).await else {
            return;
        };
        let number = 1 + self.calls.fetch_add(1, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        sleep(delay).await;
        let name = serde_json::from_str::<serde_json::Value>(&body).unwrap()["Name"].clone();
        let special = self
            .special
            .lock()
            .unwrap()
            .clone()
            .filter(|(special, _)| name == *special);
        let reply = special.map_or_else(|| self.reply.lock().unwrap().clone(), |(_, reply)| reply);
        let error = |code: &str| {
            format!(
                r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"m"}},"RequestId":"r"}}}}"#
            )
        };
        let body = match (self.verify(&head, &body), reply) {
            (_, Reply::Hang) => return sleep(Duration::from_mins(1)).await,
            (_, Reply::Raw(bytes)) => {
                return stream.write_all(bytes.as_bytes()).await.unwrap_or(());
            }
            (_, Reply::Huge) => return self.flood(stream).await,
            (Err(ApiClaimError::SignatureExpire), _) => error("AuthFailure.SignatureExpire"),
            (Err(ApiClaimError::SignatureFailure), _) => error("AuthFailure.SignatureFailure"),
            (Ok(()), Reply::Error(code)) => error(code),
            (Ok(()), Reply::Body(body)) => body,
            (Ok(()), Reply::Key(life)) => key(
                &format!("\"TOKEN{number}\""),
                &self.now().plus(life).unix().to_string(),
            ),
        };
        let date = self.now().http_date();
        let head = format!(
            "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn verify(&self, head: &str, body: &str) -> Result<(), ApiClaimError> {
        let header = |wanted: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
                .unwrap()
        };
        let call = ApiCall {
            method: "POST",
            host: header("host"),
            service: "sts",
            content_type: header("content-type"),
            query: "",
            payload: body.as_bytes(),
            time: Timestamp::from_unix(header("x-tc-timestamp").parse().unwrap()),
        };
        ApiClaim::parse(header("authorization"))?.verify(
            &call,
            &Secret::new(SECRET_KEY),
            self.now(),
        )
    }

    async fn flood(&self, mut stream: impl AsyncWrite + Unpin) {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            .await;
        let block = vec![b' '; 64 * 1024];
        for _ in 0..1024 {
            if stream.write_all(&block).await.is_err() {
                return;
            }
        }
        self.swallowed.fetch_add(1, Ordering::SeqCst);
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = std::str::from_utf8(&bytes).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

fn key(token: &str, expired: &str) -> String {
    format!(
        r#"{{"Response":{{"Credentials":{{"Token":{token},"TmpSecretId":"AKIDTMP","TmpSecretKey":"{TMP_SECRET}"}},"ExpiredTime":{expired},"RequestId":"r"}}}}"#
    )
}

fn config(endpoint: &str, limits: &str, sts: &str, tenants: &[&str]) -> Config {
    let mut text = format!(
        "[sts]\nendpoint = \"{endpoint}\"\n{sts}\n[sts.limits]\n{limits}\n\
         [issuers.main]\nkind = \"federation\"\nsecret_id = \"AKIDISSUER\"\nsecret_key = \"{SECRET_KEY}\"\n\
         [issuers.fixed]\nkind = \"static\"\nsecret_id = \"AKIDFIXED\"\nsecret_key = \"{SECRET_KEY}\"\n"
    );
    for (number, tenant) in tenants.iter().enumerate() {
        let issuer = if *tenant == "fixed" { "fixed" } else { "main" };
        let _ = write!(
            text,
            "[tenants.{tenant}]\nissuer = \"{issuer}\"\n\
             access_keys = [{{ id = \"KEYOFTHETENANT{number:06}\", secret = \"secretsecretsecretsecretsecret{number:06}\" }}]\n\
             [[tenants.{tenant}.grants]]\nname = \"bucket\"\nbucket = \"shared-1250000000\"\nregion = \"ap-guangzhou\"\n\
             prefixes = [\"{tenant}/*\"]\nactions = [\"read\"]\n"
        );
    }
    let sources = Sources {
        env: &|_| None,
        file: &|path| std::fs::read_to_string(path),
        env_names: &Vec::new,
        cores: 2,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    match Config::parse("test.toml", &text, &sources) {
        Ok((config, _)) => config,
        Err(problems) => panic!("{problems:#?}\n{text}"),
    }
}

fn entry(cache: &Cache, tenant: usize) -> Arc<Entry> {
    Arc::clone(cache.entry(tenant).unwrap())
}

fn sts_calls(cache: &Cache) -> [u64; 3] {
    let counters = cache.counters();
    [&counters.sts_ok, &counters.sts_retry, &counters.sts_clock]
        .map(|count| count.load(Ordering::SeqCst))
}

/// Waits until `met` holds, or fails.
async fn until(mut met: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !met() {
        assert!(Instant::now() < end, "it never comes");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn thousand_cold_requests_make_one_call() {
    let sts = Sts::start(Reply::Key(7200)).await;
    *sts.delay.lock().unwrap() = Duration::from_millis(100);
    let (cache, _) = sts.cache(&["acme"]);
    let all: Vec<_> = (0..1000)
        .map(|_| {
            let entry = entry(&cache, 0);
            tokio::spawn(async move { entry.get().await.unwrap() })
        })
        .collect();
    for one in all {
        let credential = one.await.unwrap();
        assert_eq!(
            (credential.secret_id.as_str(), credential.generation),
            ("AKIDTMP", 1)
        );
        assert_eq!(credential.token_header().unwrap(), "TOKEN1");
    }
    assert_eq!(
        (sts.calls(), sts_calls(&cache), cache.live_keys()),
        (1, [1, 0, 0], 1)
    );
    assert_eq!(cache.counters().misses.load(Ordering::SeqCst), 1000);
    entry(&cache, 0).get().await.unwrap();
    assert_eq!((sts.calls(), cache.hits()), (1, 1));
}

#[tokio::test]
async fn cold_requests_of_several_cores_make_one_call() {
    for _ in 0..20 {
        let sts = Sts::start(Reply::Key(7200)).await;
        let (cache, _) = sts.cache(&["acme"]);
        let cores = [0; 4].map(|_| {
            let entry = entry(&cache, 0);
            tokio::task::spawn_blocking(move || {
                let core = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                core.block_on(async {
                    for _ in 0..500 {
                        assert_eq!(entry.get().await.unwrap().generation, 1);
                    }
                });
            })
        });
        for core in cores {
            core.await.unwrap();
        }
        assert_eq!(sts.calls(), 1);
    }
}

#[tokio::test]
async fn cancelled_waiter_does_not_cancel_the_call() {
    let sts = Sts::start(Reply::Key(7200)).await;
    *sts.delay.lock().unwrap() = Duration::from_millis(300);
    let (cache, _) = sts.cache(&["acme"]);
    let (one, other) = (entry(&cache, 0), entry(&cache, 0));
    let first = tokio::spawn(async move { one.get().await });
    until(|| sts.calls() == 1).await;
    let second = tokio::spawn(async move { other.get().await });
    tokio::task::yield_now().await; // the request waits now
    first.abort();
    assert_eq!(second.await.unwrap().unwrap().generation, 1);
    assert_eq!(sts.calls(), 1);
}

#[tokio::test]
async fn renews_keys_in_the_background() {
    let sts = Sts::start(Reply::Key(4)).await;
    let (cache, _) = sts.cache(&["acme"]);
    let entry = entry(&cache, 0);
    entry.get().await.unwrap();
    *sts.delay.lock().unwrap() = Duration::from_millis(100);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let before = Instant::now();
        assert!(entry.live(before).is_some(), "a request would have waited");
        sleep(Duration::from_millis(5)).await;
    }
    let generation = entry.get().await.unwrap().generation;
    assert!((2..=4).contains(&generation), "{generation}");
    assert!(sts.calls() <= 4, "{}", sts.calls());
}

#[tokio::test]
async fn live_key_serves_during_an_sts_outage() {
    let sts = Sts::start(Reply::Key(4)).await;
    let (cache, _) = sts.cache(&["acme"]);
    let entry = entry(&cache, 0);
    entry.get().await.unwrap();
    let end = Instant::now() + Duration::from_millis(2_900); // three quarters of four seconds
    let html = Reply::Raw("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>");
    let troubles = [
        html,
        Reply::Raw(""),
        Reply::Error("InternalError"),
        Reply::Body(String::new()),
    ];
    let mut troubles = troubles.into_iter().cycle();
    while Instant::now() < end {
        sts.set(troubles.next().unwrap());
        assert_eq!(entry.get().await.unwrap().generation, 1);
        sleep(Duration::from_millis(5)).await;
    }
    let calls = sts.calls();
    assert!((2..=5).contains(&calls), "{calls}: not one a request");
    until(|| cache.live_keys() == 0).await;
    assert!(entry.live(Instant::now()).is_none());
    let late = Instant::now().saturating_duration_since(end);
    assert!(late < Duration::from_secs(1), "{late:?}");
}

#[tokio::test]
async fn failures_are_reported_in_time_without_a_storm() {
    let good = key("\"TOKEN\"", "1999999999");
    let cut = good[..good.len() - 3].to_owned();
    let troubles = [
        (
            "html",
            Reply::Body("<html>Service Unavailable</html>".to_owned()),
        ),
        ("empty", Reply::Body(String::new())),
        ("cut JSON", Reply::Body(cut)),
        (
            "cut body",
            Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"Response\":"),
        ),
        ("no response", Reply::Raw("")),
        ("no HTTP", Reply::Raw("SSH-2.0-OpenSSH_9.2\r\n")),
        (
            "status 500",
            Reply::Raw("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}"),
        ),
        ("huge", Reply::Huge),
        ("hang", Reply::Hang),
        ("wrong types", Reply::Body(key("[1]", "1999999999"))),
        (
            "time as text",
            Reply::Body(key("\"TOKEN\"", "\"1999999999\"")),
        ),
        ("no time", Reply::Body(key("\"TOKEN\"", "null"))),
        ("null token", Reply::Body(key("null", "1999999999"))),
        ("expired", Reply::Key(-1)),
        ("expires now", Reply::Key(0)),
        ("too short", Reply::Key(2)),
        ("throttled", Reply::Error("RequestLimitExceeded")),
    ];
    let all = troubles.map(|(name, reply)| {
        tokio::spawn(async move {
            let sts = Sts::start(reply).await;
            let (cache, _) = sts.cache(&["acme"]);
            let entry = entry(&cache, 0);
            let before = Instant::now();
            let error = entry.get().await.expect_err(name);
            assert!(before.elapsed() < WAIT, "{name}: {:?}", before.elapsed());
            assert!(entry.live(Instant::now()).is_none(), "{name}");
            assert!((1..=6).contains(&sts.calls()), "{name}: {}", sts.calls());
            assert_eq!(sts.swallowed.load(Ordering::SeqCst), 0, "{name}");
            for secret in [TMP_SECRET, SECRET_KEY, "TOKEN"] {
                assert!(!error.detail.contains(secret), "{name}: {error}");
            }
        })
    });
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn waiting_request_survives_a_short_failure() {
    let sts = Sts::start(Reply::Error("RequestLimitExceeded.UinLimitExceeded")).await;
    let (cache, _) = sts.cache(&["acme"]);
    let entry = entry(&cache, 0);
    let waiting = tokio::spawn(async move { entry.get().await });
    until(|| cache.counters().sts_retry.load(Ordering::SeqCst) == 1).await;
    sts.set(Reply::Key(7200));
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(sts.calls(), 2);
}

#[tokio::test]
async fn first_response_corrects_the_clock() {
    for ahead in [1200, -1200, 20] {
        let sts = Sts::start(Reply::Key(7200)).await;
        sts.ahead.store(ahead, Ordering::SeqCst);
        let (cache, clock) = sts.cache(&["acme", "beta"]);
        let credential = entry(&cache, 0).get().await.unwrap();
        let refused = u64::from(ahead.abs() > 300);
        assert_eq!(sts_calls(&cache), [1, 0, refused], "{ahead}");
        assert!(
            (clock.upstream_now().since(sts.now())).abs() <= 16,
            "{ahead}"
        );
        assert!(credential.expires.unwrap().since(sts.now()) >= 7198);
        entry(&cache, 1).get().await.unwrap();
        assert_eq!(sts_calls(&cache), [2, 0, refused], "{ahead}: learnt once");
    }
}

#[tokio::test]
async fn replaces_a_refused_key_once() {
    let sts = Sts::start(Reply::Key(7200)).await;
    let (cache, _) = sts.cache(&["acme"]);
    let entry = entry(&cache, 0);
    entry.get().await.unwrap();
    let all: Vec<_> = (0..100)
        .map(|_| {
            let entry = Arc::clone(&entry);
            tokio::spawn(async move {
                assert!(entry.reject(1));
                entry.get().await.unwrap().generation
            })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 2);
    }
    assert_eq!(sts.calls(), 2);
    let second = entry.get().await.unwrap();
    second.mark_worked();
    assert!(entry.reject(2), "however soon");
    let before = Instant::now();
    assert_eq!(entry.get().await.unwrap().generation, 3);
    assert!(before.elapsed() < Duration::from_millis(900), "at once");
    assert!(entry.reject(1) && entry.reject(2), "of older keys");
    assert_eq!(entry.live(Instant::now()).unwrap().generation, 3);
    assert_eq!(sts.calls(), 3);
}

#[tokio::test]
async fn permanent_refusal_costs_one_call() {
    let sts = Sts::start(Reply::Key(7200)).await;
    *sts.special.lock().unwrap() = Some(("bad", Reply::Error("InvalidParameter.PolicyTooLong")));
    let (cache, _) = sts.cache(&["bad", "good"]);
    let bad = entry(&cache, 0);
    for _ in 0..100 {
        let before = Instant::now();
        let error = bad.get().await.unwrap_err();
        assert!(before.elapsed() < Duration::from_secs(1));
        assert!(
            error.retry_after.is_none() && error.detail.contains("PolicyTooLong"),
            "{error:?}"
        );
    }
    assert_eq!(sts.calls(), 1);
    assert_eq!(entry(&cache, 1).get().await.unwrap().generation, 1);
}

#[tokio::test]
async fn cold_tenants_keep_to_the_call_rate() {
    let sts = Sts::start(Reply::Key(7200)).await;
    let names: Vec<_> = (0..300).map(|number| format!("tenant{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (cache, _) = sts.cache(&names);
    let start = Instant::now();
    let all: Vec<_> = (0..names.len())
        .map(|tenant| {
            let entry = entry(&cache, tenant);
            tokio::spawn(async move { entry.get().await.unwrap() })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "200 at once and 100 a second"
    );
    assert_eq!((sts.calls(), cache.live_keys()), (names.len(), names.len()));
}

#[tokio::test]
async fn uses_a_permanent_key_unchanged() {
    let sts = Sts::start(Reply::Hang).await;
    let (cache, _) = sts.cache(&["fixed"]);
    let credential = entry(&cache, 0).get().await.unwrap();
    assert_eq!(credential.secret_id, "AKIDFIXED");
    assert!(credential.token_header().is_none() && credential.expires.is_none());
    assert!(!entry(&cache, 0).reject(credential.generation));
    assert_eq!(sts.calls(), 0);
}

#[tokio::test]
async fn calls_sts_over_tls_by_its_name() {
    let (sts, pem) = Sts::start_tls(Reply::Key(7200)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let there = format!(
        "connect_to = \"127.0.0.1:{}\"\nca_file = \"{}\"",
        sts.port,
        file.path().display()
    );
    let (cache, _) = sts.cache_of(&config("https://sts.test", "", &there, &["acme"]));
    assert_eq!(entry(&cache, 0).get().await.unwrap().generation, 1);
    let (cache, _) = sts.cache_of(&config("https://other.test", "", &there, &["acme"]));
    let (entry, counters) = (entry(&cache, 0), Arc::clone(cache.counters()));
    let waiting = tokio::spawn(async move { entry.get().await });
    until(|| counters.sts_retry.load(Ordering::SeqCst) > 0).await;
    waiting.abort();
    assert_eq!(counters.sts_ok.load(Ordering::SeqCst), 0);
    assert_eq!(sts.calls(), 1);
}

#[tokio::test]
async fn stopped_cache_ends_waiting_requests() {
    let sts = Sts::start(Reply::Hang).await;
    let (cache, _) = sts.cache(&["acme"]);
    let entry = entry(&cache, 0);
    let waiting = tokio::spawn({
        let entry = Arc::clone(&entry);
        async move { entry.get().await }
    });
    until(|| sts.calls() == 1).await;
    let before = Instant::now();
    tokio::task::spawn_blocking(move || drop(cache))
        .await
        .unwrap();
    assert!(waiting.await.unwrap().is_err() && entry.get().await.is_err());
    assert!(before.elapsed() < Duration::from_millis(900));
}
