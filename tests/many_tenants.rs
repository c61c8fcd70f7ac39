//! What the keys of many tenants weigh. The only test of its process, so that it can query the system.
#![cfg(target_os = "linux")]
#![expect(
    clippy::format_push_string,
    clippy::unwrap_used,
    reason = "a test may fail anywhere"
)]

use std::sync::Arc;

use cosgate::clock::Clock;
use cosgate::config::{Config, Sources};
use cosgate::credentials::Cache;
use cosgate::timestamp::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// So many have keys within seconds at Tencent's own rate; the weight of more is in proportion.
const TENANTS: usize = 2_000;
const MANY: usize = 10_000;
/// More than the 1700 that were reported of ordinary use; Tencent gives 4096 at most (1150/49457), and
/// ten thousand of those weigh 96 MiB.
const TOKEN_BYTES: usize = 2048;
/// A policy of two buckets with a prefix and twenty actions each has about so many.
const POLICY_BYTES: usize = 1500;
const LIMIT_MIB: usize = 100;
const NOW: i64 = 1_768_480_245;

fn config(port: u16) -> Config {
    let mut text = format!(
        "[sts]\nendpoint = \"http://127.0.0.1:{port}\"\n[issuers.main]\nkind = \"federation\"\n\
         secret_id = \"AKIDISSUER\"\nsecret_key = \"secretsecretsecretsecret00000000\"\n\
         calls_per_second = 600\nburst = 600\n"
    );
    for number in 0..TENANTS {
        text += &format!(
            "[tenants.tenant{number}]\nissuer = \"main\"\n\
             access_keys = [{{ id = \"KEYOFTHETENANT{number:06}\", secret = \"secretsecretsecretsecretsecret{number:06}\" }}]\n\
             [[tenants.tenant{number}.grants]]\nname = \"bucket\"\nbucket = \"shared-1250000000\"\n\
             region = \"ap-guangzhou\"\nprefixes = [\"{number}/*\"]\nactions = [\"read\"]\n"
        );
    }
    let sources = Sources {
        env: &|_| None,
        file: &|path| std::fs::read_to_string(path),
        env_names: &Vec::new,
        cores: 1,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    Config::parse("test.toml", &text, &sources).unwrap().0
}

/// Responds to every call with a key.
async fn sts(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"}") {
                stream.read_buf(&mut bytes).await.unwrap();
            }
            let body = format!(
                r#"{{"Response":{{"Credentials":{{"Token":"{}","TmpSecretId":"{}","TmpSecretKey":"{}"}},"ExpiredTime":{},"RequestId":"r"}}}}"#,
                "t".repeat(TOKEN_BYTES),
                "i".repeat(68),
                "k".repeat(44),
                NOW + 7200
            );
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        });
    }
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

#[tokio::test]
async fn ten_thousand_tenants_keys_weigh_less_than_a_hundred_mib() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(listener.local_addr().unwrap().port());
    tokio::spawn(sts(listener));
    let before = resident();
    let clock = Arc::new(Clock::new(|| Timestamp::from_unix(NOW)));
    let policies = (0..TENANTS).map(|_| format!("\"{}\"", "p".repeat(POLICY_BYTES)));
    let cache = Cache::start(&config, policies.collect(), &clock).unwrap();
    let waiting = (0..TENANTS).map(|tenant| {
        let entry = Arc::clone(cache.entry(tenant).unwrap());
        tokio::spawn(async move {
            let key = loop {
                if let Ok(key) = entry.get().await {
                    break key; // on a slow machine it takes more than five seconds
                }
            };
            key.sigv4_key("20260115", "ap-guangzhou");
            key.cos_key(Timestamp::from_unix(NOW));
        })
    });
    for one in waiting.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(cache.live_keys(), TENANTS);
    let each = resident().saturating_sub(before) / TENANTS;
    let mib = each * MANY / (1 << 20);
    println!("{each} bytes a tenant: {mib} MiB for {MANY}");
    assert!(mib < LIMIT_MIB, "{mib} MiB");
}
