//! What a key costs that is there: `cargo bench --bench credentials`.

#![allow(
    clippy::clone_on_ref_ptr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench may panic, and measures real time"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::{Arc, LazyLock};

use cosgate::credentials::{Credential, Entry};
use divan::Bencher;
use tokio::time::Instant;

/// An entry with a live key of the emulator's STS. A hit should cost less than 100 ns.
static ENTRY: LazyLock<Arc<Entry>> = LazyLock::new(|| {
    let world = support::World::new();
    world.signed("PUT", "/photos/acme/k").send().assert_ok();
    let entry = Arc::clone(world.gateway.shared.credentials().entry(0).unwrap());
    assert!(entry.has_live(Instant::now()));
    entry
});

fn main() {
    LazyLock::force(&ENTRY);
    divan::main();
}

/// As a request does it.
#[divan::bench(threads = [1, 2])]
fn hit(bencher: Bencher<'_, '_>) {
    bencher.bench(|| hit_at(Instant::now()));
}

/// Without the clock.
#[divan::bench]
fn hit_at_a_given_time(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    bencher.bench(|| hit_at(now));
}

fn hit_at(now: Instant) -> Arc<Credential> {
    ENTRY.live(now).unwrap()
}
