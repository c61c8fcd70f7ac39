//! Name resolution, connections, TLS and the clock, for every endpoint that is configured.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::time::Instant;

use super::finding::{Finding, ProbeArea, ProbeResult};
use crate::clock::Clock;
use crate::config::{Config, EndpointTemplate, TenantConfig, is_loopback};
use crate::rewrite::request::fill;
use crate::upstream::dial::{DialError, Dialer, Roots};
use crate::upstream::one_shot::{OneShotClient, OneShotError, OneShotResponse};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_BYTES: usize = 64 * 1024;
/// Hosts of buckets that are probed.
const BUCKETS: usize = 20;
/// STS refuses a clock that is so many seconds off (1312/48178).
const REFUSED_SKEW: i64 = 300;

/// A host that cosgate connects to.
#[derive(Clone, Debug, PartialEq)]
struct Endpoint {
    /// The table of the configuration.
    table: &'static str,
    authority: String,
    tls: bool,
    connect_to: Option<String>,
    ca_file: Option<std::path::PathBuf>,
}

/// One finding for each endpoint that `tenants` need, and one for the clock.
pub(super) async fn endpoints(
    config: &Config,
    tenants: &[usize],
    clock: &Arc<Clock>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut offsets = Vec::new();
    for endpoint in all(config, tenants) {
        let (finding, offset) = probe(&endpoint, clock).await;
        findings.push(finding);
        offsets.extend(offset.map(|offset| (offset, endpoint.authority)));
    }
    findings.extend(clock_finding(&offsets));
    findings
}

fn all(config: &Config, tenants: &[usize]) -> Vec<Endpoint> {
    let upstream = &config.upstream;
    let of = |template: &EndpointTemplate, authority: String| Endpoint {
        table: "[upstream]",
        authority,
        tls: template.tls,
        connect_to: upstream.connect_to.clone(),
        ca_file: upstream.ca_file.clone(),
    };
    let sts = Endpoint {
        table: "[sts]",
        authority: config.sts.endpoint.authority.clone(),
        tls: config.sts.endpoint.tls,
        connect_to: config.sts.connect_to.clone(),
        ca_file: config.sts.ca_file.clone(),
    };
    let tenants = tenants
        .iter()
        .filter_map(|index| config.tenants.get(*index));
    let calls_sts = |tenant: &TenantConfig| {
        let issuer = config.issuers.get(tenant.issuer);
        issuer.is_some_and(|issuer| issuer.kind.duration().is_some())
    };
    let is_sts_needed = tenants.clone().any(calls_sts);
    let mut found: Vec<_> = is_sts_needed.then_some(sts).into_iter().collect();
    for grant in tenants.flat_map(|tenant| &tenant.grants) {
        let endpoint = of(
            &upstream.endpoint,
            fill(&upstream.endpoint.authority, grant),
        );
        if !found.contains(&endpoint) && found.len() <= BUCKETS {
            found.push(endpoint);
        }
    }
    found
}

/// Connects, and makes one unsigned request for the `Date` of the response. Returns how far the host's
/// clock is ahead of ours, in seconds.
async fn probe(endpoint: &Endpoint, clock: &Clock) -> (Finding, Option<i64>) {
    let table = endpoint.table;
    let scheme = if endpoint.tls { "https" } else { "http" };
    let subject = format!("{scheme}://{}", endpoint.authority);
    let finding =
        Finding::new(ProbeArea::Network, subject, "name, connection, TLS").sent("GET /, unsigned");
    let roots = match Roots::for_endpoint(endpoint.tls, endpoint.ca_file.as_deref()) {
        Ok(roots) => roots,
        Err(error) => {
            let change = format!("set `ca_file` in {table} to the certificates of the host's CA");
            let finding = finding.came(error);
            let finding = finding.is(ProbeResult::Fail, "no certificate can be verified");
            return (finding.change(change), None);
        }
    };
    match connect(endpoint, roots.as_ref()).await {
        Err(error) => (unreachable(finding, &error, table), None),
        Ok((connected, Ok(response))) => {
            let offset = response.date.map(|date| date.since(clock.now()));
            let finding = finding.came(format!("{connected}, HTTP {}", response.status.as_u16()));
            (judge_tls(finding, endpoint), offset)
        }
        Ok((_, Err(error))) => {
            let meaning = "the host accepts connections, but does not speak HTTP";
            let change = format!("check `endpoint` and `connect_to` in {table}");
            let finding = finding.came(error).is(ProbeResult::Fail, meaning);
            (finding.change(change), None)
        }
    }
}

/// How the connection is, and the response to a request on it.
async fn connect(
    endpoint: &Endpoint,
    roots: Option<&Roots>,
) -> Result<(String, Result<OneShotResponse, OneShotError>), DialError> {
    let dialer = || {
        let to = endpoint.connect_to.clone();
        Dialer::new(roots, to, CALL_TIMEOUT, CALL_TIMEOUT)
    };
    let began = Instant::now();
    let stream = dialer().dial(&endpoint.authority).await?;
    let took = began.elapsed().as_millis();
    let version = stream.tls_version().unwrap_or_else(|| "no TLS".to_owned());
    drop(stream);
    let client = OneShotClient::new(&endpoint.authority, dialer(), CALL_TIMEOUT, RESPONSE_BYTES);
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = Uri::from_static("/");
    Ok((
        format!("connected in {took} ms, {version}"),
        client.send(request).await,
    ))
}

fn judge_tls(finding: Finding, endpoint: &Endpoint) -> Finding {
    let dialled = endpoint.connect_to.as_ref().unwrap_or(&endpoint.authority);
    if endpoint.tls {
        let meaning = "the host is reached, and its certificate is verified";
        return finding.is(ProbeResult::Ok, meaning);
    }
    if is_loopback(dialled) {
        return finding.is(ProbeResult::Ok, "the host is reached, on this machine");
    }
    let meaning = "the host is reached without TLS: everybody on the way can read";
    let change = format!("write https:// in `endpoint` of {}", endpoint.table);
    finding.is(ProbeResult::Warning, meaning).change(change)
}

fn unreachable(finding: Finding, error: &DialError, table: &str) -> Finding {
    let (meaning, change) = match error {
        DialError::Resolve(_) => (
            "the name does not resolve",
            format!(
                "check `endpoint` in {table} and this machine's name servers, or set `connect_to`"
            ),
        ),
        DialError::Tls(_) | DialError::TlsTimeout(_) => (
            "the TLS handshake fails",
            format!(
                "set `ca_file` in {table} if the host has a private CA; check the name in `endpoint`"
            ),
        ),
        DialError::Authority(_) => (
            "the host's name is not valid",
            format!("check `endpoint` in {table}"),
        ),
        DialError::Connect(_) | DialError::ConnectTimeout(_) | DialError::Proxy(_) => (
            "no connection",
            format!("check `endpoint` and `connect_to` in {table}, and this machine's firewall"),
        ),
    };
    finding
        .came(error)
        .is(ProbeResult::Fail, meaning)
        .change(change)
}

fn clock_finding(offsets: &[(i64, String)]) -> Option<Finding> {
    let (offset, host) = offsets.iter().max_by_key(|(offset, _)| offset.abs())?;
    let finding = Finding::new(ProbeArea::Network, "this machine", "clock")
        .sent("the same requests")
        .came(format!("`Date` of {host} is {offset:+} s from this clock"));
    let change = "set this machine's clock, and keep it with NTP";
    Some(match offset.abs() {
        ..=5 => finding.is(ProbeResult::Ok, "the clock is right"),
        6..REFUSED_SKEW => finding
            .is(
                ProbeResult::Warning,
                "cosgate corrects what it signs; clients that sign may be refused",
            )
            .change(change),
        _ => finding
            .is(
                ProbeResult::Fail,
                "STS refuses requests that are signed by this clock",
            )
            .change(change),
    })
}
