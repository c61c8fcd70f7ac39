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
    match super::process::block_on(probe(&arguments.url)) {
        Ok(Ok(health)) if health.is_healthy => printed(&format!("{}\n", health.text)),
        Ok(Ok(health)) => failed(&arguments.url, &health.text),
        Ok(Err(error)) => failed(&arguments.url, &error),
        Err(error) => super::cannot_start(&error),
    }
}

fn failed(url: &HealthUrl, why: &str) -> ExitCode {
    complain(&format_args!("cosgate: error: {url}: {why}"));
    ExitCode::FAILURE
}
