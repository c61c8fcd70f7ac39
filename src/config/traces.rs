//! `[traces]`: which requests are recorded as traces, and where these go.

use std::path::PathBuf;

use super::endpoint::{self, EndpointTemplate, Placeholders};
use super::given_secret::GivenSecret;
use super::log::SampleShare;
use super::section::Section;

/// `[traces]`
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// `enabled`: a request that is no part of a trace begins one.
    pub enabled: bool,
    /// `share`: of the traces that begin here, those that are recorded.
    pub share: SampleShare,
    /// `endpoint`, and what it needs.
    pub collector: Option<CollectorConfig>,
}

/// Where recorded requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorConfig {
    /// `endpoint`: the URL for traces of OTLP over HTTP.
    pub endpoint: EndpointTemplate,
    /// `ca_file`: PEM; whom to trust in place of the platform's authorities.
    pub ca_file: Option<PathBuf>,
    /// `authorization`: the header of that name.
    pub authorization: Option<GivenSecret>,
}

pub(super) fn traces(section: Section<'_>) -> Option<TracesConfig> {
    let enabled = section.flag("enabled").value;
    let share = section.parsed("share", SampleShare::read);
    let endpoint = section.parsed("endpoint", |text| {
        endpoint::endpoint(text, Placeholders::None)
    });
    let ca_file = section.pem("ca_file");
    let authorization = section.secret("authorization");
    if let Some(endpoint) = &endpoint {
        if !endpoint.value.tls && !endpoint::is_loopback(&endpoint.value.authority) {
            let message =
                "`endpoint` uses http://: traces and `authorization` cross the network unencrypted";
            section.warning(&endpoint.origin, message, "write https://");
        }
        if cfg!(feature = "otel") && !enabled {
            let message = "`endpoint` has no effect without `enabled`";
            section.error(
                &endpoint.origin,
                message,
                "add enabled = true, or remove endpoint",
            );
        }
        if !cfg!(feature = "otel") {
            let message = "`endpoint`: this cosgate cannot send traces";
            let fix = "build cosgate with --features otel, or remove endpoint";
            section.error(&endpoint.origin, message, fix);
        }
    }
    section.finish();
    Some(TracesConfig {
        enabled,
        share: share?.value,
        collector: endpoint.map(|endpoint| CollectorConfig {
            endpoint: endpoint.value,
            ca_file,
            authorization: authorization.map(|found| found.value),
        }),
    })
}
