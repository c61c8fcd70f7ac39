//! `cosgate health`: the probe of containers, whose image has no other program.

use std::process::ExitCode;

use clap::Args;
use cosgate::downstream::health::{HealthUrl, probe};

use super::{complain, printed};

/// Request a page of an admin listener, and fail unless the response is 2xx.
///
/// It is the health check of a container: the image has no curl. It follows no redirect, and waits 5 seconds at most.
/// Exit status: 0 if the response is 2xx, 1 if it is another or there is none, 2 if the URL is wrong.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate health
  cosgate health http://127.0.0.1:9102/health")]
pub(super) struct Arguments {
    /// The page, by plain HTTP
    #[arg(default_value = "http://127.0.0.1:9001/readyz", value_parser = HealthUrl::parse)]
    url: HealthUrl,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return super::cannot_start(&error),
    };
    let probed = runtime.block_on(probe(&arguments.url));
    runtime.shutdown_background(); // a look-up that hangs must not hold us
    match probed {
        Ok(health) if health.is_healthy => printed(&format!("{}\n", health.text)),
        Ok(health) => failed(&arguments.url, &health.text),
        Err(error) => failed(&arguments.url, &error),
    }
}

fn failed(url: &HealthUrl, why: &str) -> ExitCode {
    complain(&format_args!("cosgate: error: {url}: {why}"));
    ExitCode::FAILURE
}
