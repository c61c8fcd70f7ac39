//! [`Explanation`]: the facts that `explain` shows of a request, as text or as JSON.

use std::fmt::Write as _;

use cosgate::decision::{ObjectPlan, PayloadPlan, Step};
use cosgate::error::S3Error;
use cosgate::payload::Framing;
use cosgate::s3::S3Request;
use cosgate::tenant::{CrossOrigin, Grant, Permit, Readable};
use http::Response;
use serde::Serialize;

use super::upstream::{KeyForecast, UpstreamHead};

/// All that is known of one request.
#[derive(Default, Serialize)]
pub(super) struct Explanation {
    pub(super) verdict: &'static str,
    steps: Vec<StepLine>,
    /// What a browser learns of who may read the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    cors: Option<String>,
    #[serde(rename = "answer", skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<ShownResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<UpstreamHead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<KeyForecast>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) grants: Vec<GrantSummary>,
}

/// What the tenant has, for whoever wonders why it was refused.
#[derive(Serialize)]
pub(super) struct GrantSummary {
    grant: String,
    actions: Vec<String>,
}

/// What one step finds.
#[derive(Serialize)]
struct StepLine {
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<ExplainedError>,
    #[serde(rename = "says")]
    finding: String,
}

#[derive(Serialize)]
struct ExplainedError {
    status: u16,
    code: &'static str,
}

/// A response that is made here.
#[derive(Serialize)]
pub(super) struct ShownResponse {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Explanation {
    pub(super) fn add(&mut self, step: Step, finding: String) {
        self.steps.push(StepLine {
            step: step.as_str(),
            refused: None,
            finding,
        });
    }

    pub(super) fn refuse(&mut self, step: Step, error: &S3Error) {
        self.steps.push(StepLine {
            step: step.as_str(),
            refused: Some(ExplainedError {
                status: error.http_status().as_u16(),
                code: error.code().as_str(),
            }),
            finding: error.message().to_owned(),
        });
    }

    /// Which rule for pages of other origins counts.
    pub(super) fn cross_origin(&mut self, cross_origin: &CrossOrigin) {
        self.cors = match cross_origin {
            CrossOrigin::NoRule => None,
            CrossOrigin::Withheld => {
                Some("no rule matches: pages of other origins cannot read the response".to_owned())
            }
            CrossOrigin::Readable(Readable { origin, rule, .. }) => {
                let origin = String::from_utf8_lossy(origin.as_bytes());
                Some(format!(
                    "rule {rule} matches: pages of {origin} may read the response"
                ))
            }
        };
    }

    /// A preflight that a rule allows.
    pub(super) fn preflight(&mut self, response: &Response<String>) {
        let finding = "a preflight names no tenant: the rules of all grants of this name count";
        self.add(Step::Authorize, finding.to_owned());
        let shown = response.headers().iter().map(|(name, value)| {
            format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
        });
        self.response = Some(ShownResponse {
            status: response.status().as_u16(),
            body: shown.collect(),
        });
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.steps {
            let _ = match &line.refused {
                None => writeln!(text, "{:<13} {}", line.step, line.finding),
                Some(ExplainedError { status, code }) => writeln!(
                    text,
                    "{:<13} refused with {status} {code}: {}",
                    line.step, line.finding
                ),
            };
        }
        if let Some(cors) = &self.cors {
            let _ = writeln!(text, "cors          {cors}");
        }
        let _ = writeln!(text, "verdict       {}", self.verdict);
        for GrantSummary { grant, actions } in &self.grants {
            let _ = writeln!(text, "\ngranted: {grant}\n  {}", actions.join("\n  "));
        }
        if let Some(response) = &self.response {
            let _ = writeln!(
                text,
                "\nthe response: status {}\n{}",
                response.status, response.body
            );
        }
        if let Some(upstream) = &self.upstream {
            let UpstreamHead {
                method,
                scheme,
                authority,
                target,
                ..
            } = upstream;
            let _ = writeln!(
                text,
                "\nto COS, at {scheme}://{authority}\n  {method} {target} HTTP/1.1"
            );
            for (name, value) in &upstream.headers {
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        if let Some(policy) = self.credential.as_ref().and_then(|key| key.policy.as_ref()) {
            let pretty = serde_json::to_string_pretty(policy).unwrap_or_default();
            let _ = writeln!(text, "\nthe policy inside the temporary key\n{pretty}");
        }
        text
    }
}

impl From<&Grant> for GrantSummary {
    fn from(grant: &Grant) -> Self {
        Self {
            grant: describe_grant(grant),
            actions: grant.actions.clone(),
        }
    }
}

pub(super) fn describe(requested: &S3Request<'_>) -> String {
    let mut text = format!("{:?}", requested.operation);
    if let Some(bucket) = &requested.bucket {
        let _ = write!(text, ", bucket {bucket:?}");
    }
    if let Some(key) = &requested.key {
        let _ = write!(text, ", key {:?}", key.as_str());
    }
    for (name, value) in requested.upstream_query() {
        let _ = write!(text, ", {name}={value:?}");
    }
    if let Some(source) = &requested.copy_source {
        let _ = write!(
            text,
            ", from bucket {:?}, key {:?}",
            source.bucket,
            source.key.as_str()
        );
    }
    text
}

pub(super) fn permitted(permit: &Permit<'_, '_>) -> String {
    let action = permit.request().operation.action();
    let grant = permit.grant().map_or_else(String::new, describe_grant);
    let mut text = format!("granted {action} by {grant}");
    if let (Some(source), Some(action)) = (
        permit.source(),
        permit.request().operation.copy_source_action(),
    ) {
        let _ = write!(text, ", and {action} by {}", describe_grant(source));
    }
    text
}

pub(super) fn describe_grant(grant: &Grant) -> String {
    let prefixes: Vec<_> = grant.prefixes.iter().map(ToString::to_string).collect();
    let session = match grant.session {
        Some(_) => ", narrowed by the session's Policy",
        None => "",
    };
    format!(
        "{} ({} in {}, prefixes {}{session})",
        grant.name,
        grant.bucket,
        grant.region,
        prefixes.join(" ")
    )
}

/// How the body would go on. `length_assumed`: the length is not known yet.
pub(super) fn payload(plan: &PayloadPlan, length_assumed: bool) -> String {
    match plan {
        PayloadPlan::Document(plan) => format!(
            "a document of at most {} bytes, read whole, parsed and written anew; COS gets its Content-Length and Content-MD5 too",
            plan.max_bytes
        ),
        PayloadPlan::Empty => "none".to_owned(),
        PayloadPlan::Object(plan) => object(plan, length_assumed),
    }
}

fn object(plan: &ObjectPlan, length_assumed: bool) -> String {
    let framing = match plan.declared.framing {
        Framing::AwsChunked => "unpacked from aws-chunked",
        Framing::Plain => "as it comes",
    };
    let length = match plan.declared.length {
        Some(_) if length_assumed => "as many bytes as its Content-Length declares".to_owned(),
        Some(length) => format!("{length} bytes"),
        None => {
            let max = plan.max_spooled;
            return format!(
                "an object of unknown length, held until it is whole: of more than {max} bytes it would be refused with 411 MissingContentLength"
            );
        }
    };
    format!(
        "an object, {framing}, {length}, checked as it streams; its end is held back until all is well"
    )
}
