//! COS and STS over TLS, by `ca_file` and `connect_to`.

use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::secret::Secret;

use crate::support::{ACCOUNT, Authority, BUCKET, Gateway, World, toml};

/// cosgate in front of an emulator with TLS, whose certificate is for `names`.
fn world(authority: &Authority, names: &[&str]) -> World {
    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        tls: Some(authority.pair_of("emulator", names)),
        ..EmulatorConfig::default()
    })
    .unwrap();
    let toml = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let toml = toml.replace("endpoint = \"http://", "endpoint = \"https://");
    let trusts = format!("ca_file = '{}'\nconnect_to", authority.ca().display());
    let gateway = Gateway::start(&toml.replace("connect_to", &trusts));
    World { gateway, emulator }
}

#[test]
fn stores_and_reads_over_tls() {
    let authority = Authority::new("ours");
    let names = ["*.cos.ap-guangzhou.myqcloud.com", "sts.tencentcloudapi.com"];
    let world = world(&authority, &names);
    let content = vec![b'x'; 300_000];
    let put = world.signed("PUT", "/photos/acme/k").body(content.clone());
    put.send().assert_ok();
    assert!(world.emulator.object_bytes(BUCKET, "acme/k") == Some(content.clone()));
    let get = world.signed("GET", "/photos/acme/k");
    assert!(get.send().assert_ok().body == content);
}

#[test]
fn sends_nothing_to_a_cos_of_another_name() {
    let authority = Authority::new("ours");
    let names = ["*.cos.ap-beijing.myqcloud.com", "sts.tencentcloudapi.com"];
    let world = world(&authority, &names);
    let put = world.signed("PUT", "/photos/acme/k").body("x");
    assert_eq!(put.send().status, 502);
    assert_eq!(
        world.emulator.issued_keys().len(),
        1,
        "STS has the right name"
    );
    assert_eq!(world.emulator.counters().counts().cos_requests, 0);
}
