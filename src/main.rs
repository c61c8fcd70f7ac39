//! The `cosgate` program: flags in, exit status out.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// Threads of its own give back what has not been used for ten seconds, which the system's does not: after 1000 slow
/// readers that kept 63 MiB, and this 13.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::Arguments::parse().run()
}
