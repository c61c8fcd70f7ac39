//! `cosgate load`: load of many tenants on any S3 endpoint, with verification, faults, and one report.
//!
//! 1. [`Scenario`] holds the options; `plan` fills in defaults and resolves names;
//! 2. `worker` threads drive it: `arrivals` says when, `operation` and `sizes` what, `perform` sends the
//!    requests that `request` signs over the connections of `client`;
//! 3. `ledger` remembers what was acknowledged, `content` makes each byte from a seed, and `sweep`
//!    compares the store with both;
//! 4. `run` starts and measures, `knee` looks for the highest rate that holds;
//! 5. [`Report`] is the result, and `text`, `csv`, `html`, `compare` and `merge` are its views.

#![expect(
    clippy::cast_precision_loss,
    reason = "numbers for people: 2^53 operations or bytes are beyond any run"
)]

mod arrivals;
mod client;
mod compare;
mod content;
mod csv;
mod embedded;
mod expression;
mod html;
mod knee;
mod latency;
mod ledger;
mod listing;
mod live;
mod merge;
mod names;
mod operation;
mod perform;
mod plan;
mod plot;
mod probe;
mod process;
mod quantity;
mod report;
mod request;
mod run;
mod scenario;
mod sizes;
mod stats;
mod sweep;
mod tenants;
mod text;
mod timer;
mod upload;
mod worker;

pub use arrivals::{Spacing, Stage};
pub use compare::compare;
pub use csv::csv;
pub use embedded::{Embedded, ProxyProgram};
pub use expression::Expression;
pub use html::html;
pub use latency::Latencies;
pub use live::Live;
pub use merge::merge;
pub use names::NameStyle;
pub use operation::{LoadOperation, Mix};
pub use plan::PlanInputs;
pub use quantity::{ByteSize, Share, Span};
pub use report::{
    FaultResult, Generator, Isolation, Knee, KneeStep, OperationResult, ProxyUsage, Report, SCHEMA,
    SideResult, TenantResult, Truth,
};
pub use run::{Environment, FaultControl, run};
pub use scenario::{Against, BucketStyle, DirectTarget, EmbeddedSignature, Scenario, Shard, Sweep};
pub use sizes::Sizes;
pub use stats::{ErrorCount, Interval, IntervalRow, Series, Totals};
pub use tenants::{Skew, TenantEntry};
pub use text::summary;
pub use upload::{UploadChecksum, UploadForm, UploadForms, UploadFraming};
