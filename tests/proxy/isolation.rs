//! Random sequences of two tenants who share real buckets, compared with a model. Each tenant sees and changes only
//! its own objects, whatever it requests and whatever it has learnt.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, and its modules are its own"
)]

mod model;
mod names;
mod operations;
mod wire;

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use model::Model;

/// The number of sequences, unless `PROPTEST_CASES` is set.
const CASES: u32 = 16;

#[test]
fn isolates_tenants_with_s3_signatures() {
    random_runs("s3");
}

#[test]
fn isolates_tenants_with_cos_signatures() {
    random_runs("cos");
}

/// Runs once, or for the number of seconds in `COSGATE_SOAK`.
fn random_runs(signature: &str) {
    let soak = std::env::var("COSGATE_SOAK").map_or(0, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(soak);
    loop {
        random_run(signature);
        if Instant::now() >= end {
            return;
        }
    }
}

fn random_run(signature: &str) {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(0));
    }
    let seed = config.rng_seed;
    let outcome = TestRunner::new(config).run(&operations::run(), |run| {
        let world = names::world(signature, run.second_fence);
        let mut model = Model::new(&world, signature);
        for (who, style, page, operation) in &run.steps {
            model.step(*who, *style, *page, operation);
        }
        model.end();
        Ok(())
    });
    let Err(error) = outcome else { return };
    let TestError::Fail(reason, run) = error else {
        panic!("{error}");
    };
    let steps = run.steps.iter().map(|step| format!("\n{step:?}"));
    panic!(
        "{reason}\nThe fewest steps to it, {} the second fence:{}\n\
         The same again: PROPTEST_RNG_SEED={seed}, COS spoken to in {signature}",
        if run.second_fence { "with" } else { "without" },
        steps.collect::<String>()
    );
}
