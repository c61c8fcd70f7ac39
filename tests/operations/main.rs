//! The program as its operator sees it: commands, documents, logs, limits, memory, signals and the end.

#[path = "../support/mod.rs"]
mod support;

mod admin_api;
mod audit;
mod bounded_memory;
mod chart;
mod cli;
mod companions;
mod configurations;
mod decision;
mod doctor;
mod doctor_probes;
mod documents;
mod drain;
mod explain;
mod limits;
mod panic;
mod process;
mod readiness;
mod reload;
mod request_reference;
#[cfg(feature = "otel")]
mod traces;
