//! Faults on demand: the language that describes what fails, for which requests, when and how often. Pure.
//!
//! The same language is used by `--faults` files, scenarios of `cosgate load`, `PUT /faults` and tests.
//! `docs/faults.md` explains it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::behaviour::CosBehaviour;
use super::quantity::{ByteSize, Share, Span};
use crate::emulator::fault_target::is_operation;

/// Maximum number of faults in one set.
const FAULTS: usize = 1000;
/// Maximum length of a fault's name in characters.
const NAME: usize = 200;
/// The actions of STS.
const STS_ACTIONS: [&str; 4] = [
    "AssumeRole",
    "AssumeRoleWithWebIdentity",
    "GetCallerIdentity",
    "GetFederationToken",
];
/// The names of [`CommonFault`]: the faults of both services.
const COMMON: [&str; 4] = ["bandwidth", "clock-offset", "latency", "refuse-connections"];

/// All faults of an emulator. By default there are none.
///
/// `faults` can express every fault. The other fields are a short form for one fault of each service, without a scope.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The fault of STS.
    pub sts: Option<StsFault>,
    /// How many further STS requests meet it; `None` means all until it is cleared.
    pub sts_times: Option<u32>,
    /// Milliseconds that STS waits before each response.
    pub sts_latency_ms: u64,
    /// Lifetime of each new key in seconds, in place of the requested one. May be 0 or negative.
    pub sts_lifetime: Option<i64>,
    /// Seconds by which the clock of STS is wrong: for its signature check, its `Date` and its expiry times.
    pub sts_clock_offset: i64,
    /// The fault of COS.
    pub cos: Option<CosFault>,
    /// How many further COS requests meet it; `None` means all until it is cleared.
    pub cos_times: Option<u32>,
    /// Milliseconds that COS waits before each response.
    pub cos_latency_ms: u64,
    /// Respond to an expired key with `400 ExpiredToken` in place of `403 InvalidAccessKeyId`. It is not known
    /// which one the real COS chooses.
    pub expired_token_code: bool,
    /// The list of faults.
    pub faults: Vec<FaultEntry>,
    /// The seed of shares and latencies. The same seed gives the same faults to the same requests.
    pub seed: u64,
}

/// A file of faults.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultFile {
    /// The same as in [`Faults`].
    pub seed: Option<u64>,
    /// The faults.
    pub faults: Vec<FaultEntry>,
}

impl FaultFile {
    /// Reads a file: JSON if `name` ends in `.json`, otherwise TOML.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let is_json = name.to_ascii_lowercase().ends_with(".json");
        let file: Self = if is_json {
            serde_json::from_str(text).map_err(|error| error.to_string())
        } else {
            toml::from_str(text).map_err(|error| error.to_string())
        }
        .map_err(|error| format!("{name}: {error}"))?;
        check_count(&file.faults).map_err(|error| format!("{name}: {error}"))?;
        Ok(file)
    }
}

impl From<FaultFile> for Faults {
    fn from(file: FaultFile) -> Self {
        Self {
            faults: file.faults,
            seed: file.seed.unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Refuses more faults than a set may have.
pub(super) fn check_count(faults: &[FaultEntry]) -> Result<(), String> {
    if faults.len() > FAULTS {
        return Err(format!("at most {FAULTS} faults at once"));
    }
    Ok(())
}

/// One fault: what fails, and which requests meet it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "FaultText", into = "FaultText")]
pub struct FaultEntry {
    /// Its name in plots and counts. Without a name, the description of its action is used.
    pub name: Option<String>,
    /// The service that fails.
    pub service: FaultService,
    /// Only requests for one of these operations; an empty list means all. For STS: its actions.
    pub operations: Vec<String>,
    /// Only requests for this bucket, with APPID.
    pub bucket: Option<String>,
    /// Only requests for keys with this prefix, and listings of such a prefix.
    pub prefix: Option<String>,
    /// Only STS calls for this tenant, or requests with a temporary key of this tenant.
    pub tenant: Option<String>,
    /// The share of these requests that meets it, drawn from the seed.
    pub share: Option<Share>,
    /// Only every n-th of these requests.
    pub every: Option<u64>,
    /// Maximum number of requests that meet it; `None` means no limit.
    pub times: Option<u64>,
    /// When it begins, counted from the activation of the faults or the start of the load.
    pub from: Span,
    /// When it ends.
    pub until: Option<Span>,
    /// What fails.
    pub action: FaultAction,
}

/// The service that fails.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultService {
    /// The object store.
    Cos,
    /// The issuer of temporary keys.
    Sts,
}

/// What fails.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultAction {
    /// A fault that both services can have.
    Common(CommonFault),
    /// A fault of COS.
    Cos(CosFault),
    /// A fault of STS.
    Sts(StsFault),
}

/// A fault that both services can have.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommonFault {
    /// Limits each direction to this number of bytes a second.
    Bandwidth(ByteSize),
    /// Shifts the clock by this number of seconds, for signatures, keys and `Date`.
    ClockOffset(i64),
    /// Waits before it reads the request.
    Latency(FaultLatency),
    /// Resets each new connection at once, as if the host were unreachable. Open connections continue.
    RefuseConnections,
}

/// The length of a wait.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum FaultLatency {
    /// Always the same.
    Fixed(Span),
    /// Normally distributed, and never negative.
    Normal {
        /// The mean.
        mean: Span,
        /// The standard deviation.
        deviation: Span,
    },
    /// Log-normally distributed: a long tail.
    LongTail {
        /// Half of the waits are shorter.
        median: Span,
        /// One wait in a hundred is longer.
        p99: Span,
    },
}

/// A fault of STS.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsFault {
    /// Closes the connection without a response.
    Down,
    /// Responds with this error code, in Tencent's JSON.
    Error(String),
    /// Never responds.
    Hang,
    /// Responds with status 200 and a page of HTML, as a captive portal does.
    Html,
    /// Responds with HTTP 500 and without JSON.
    Http500,
    /// Responds with 64 MiB of blanks.
    Huge,
    /// Gives new keys this lifetime in seconds, in place of the requested one. May be 0 or negative.
    Lifetime(i64),
    /// Responds with a key whose token is null.
    NullToken,
    /// Responds with a key whose fields have wrong types.
    WrongTypes,
}

/// A fault of COS.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CosFault {
    /// No failure: COS behaves so in a point that its documents leave open.
    Behaves(CosBehaviour),
    /// Responds with this status and code after this many bytes of the request's body, and reads no more.
    RespondAfterReceived {
        /// Bytes of the body.
        bytes: u64,
        /// HTTP status.
        status: u16,
        /// COS's code.
        code: String,
    },
    /// Responds with this status and code, in COS's XML, before any check. The status may be 200: copies and
    /// completed uploads can fail that way (436/10881).
    Error {
        /// HTTP status.
        status: u16,
        /// COS's code.
        code: String,
    },
    /// Responds to an expired key with `400 ExpiredToken`.
    ExpiredTokenCode,
    /// Changes the byte after this many bytes of the request's body, and stores the changed body.
    FlipAfterReceived(u64),
    /// Changes the byte after this many bytes of the response's body.
    FlipAfterSent(u64),
    /// Limits a page of a listing to this many entries, and says that there are more.
    PartialListing(u32),
    /// Resets the connection before the head of the response.
    Reset,
    /// Resets the connection after this many bytes of the request's body.
    ResetAfterReceived(u64),
    /// Resets the connection after this many bytes of the response's body.
    ResetAfterSent(u64),
    /// Revokes the temporary keys that exist at `from`: those of `tenant`, or all. An event, not a state.
    RevokeKeys,
    /// Responds with 503 `SlowDown`.
    SlowDown,
    /// Never responds.
    Stall,
    /// Stops reading after this many bytes of the request's body, and never responds.
    StallAfterReceived(u64),
    /// Stops sending after this many bytes of the response's body.
    StallAfterSent(u64),
}

impl CosFault {
    /// Whether no later fault can have an effect.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Error { .. } | Self::Reset | Self::SlowDown | Self::Stall
        )
    }
}

impl FaultEntry {
    /// A fault of COS that every request meets.
    pub fn cos(fault: CosFault) -> Self {
        Self::new(FaultService::Cos, FaultAction::Cos(fault))
    }

    /// A fault of STS that every call meets.
    pub fn sts(fault: StsFault) -> Self {
        Self::new(FaultService::Sts, FaultAction::Sts(fault))
    }

    /// A fault that either service can have.
    pub fn common(service: FaultService, fault: CommonFault) -> Self {
        Self::new(service, FaultAction::Common(fault))
    }

    fn new(service: FaultService, action: FaultAction) -> Self {
        Self {
            name: None,
            service,
            operations: Vec::new(),
            bucket: None,
            prefix: None,
            tenant: None,
            share: None,
            every: None,
            times: None,
            from: Span::default(),
            until: None,
            action,
        }
    }

    /// Its name, or a description of its action.
    pub fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let action = self.action.written().to_string();
        let action: String = action
            .chars()
            .filter(|c| !matches!(c, '"' | '{' | '}'))
            .map(|c| if c == ':' { ' ' } else { c })
            .collect();
        format!("{} {action}", self.service.name())
    }

    /// Whether it happens once and is not a state.
    pub fn is_event(&self) -> bool {
        matches!(self.action, FaultAction::Cos(CosFault::RevokeKeys))
    }

    /// Whether it can be met this long after the activation of its set.
    pub fn is_on(&self, elapsed: Duration) -> bool {
        self.from.0 <= elapsed && self.until.is_none_or(|until| elapsed < until.0)
    }

    /// Whether it is limited to some operations, buckets, prefixes or tenants.
    pub(super) fn has_scope(&self) -> bool {
        !self.operations.is_empty()
            || self.bucket.is_some()
            || self.prefix.is_some()
            || self.tenant.is_some()
    }

    fn check(&self) -> Result<(), String> {
        let label = self.label();
        let wrong = |what: &str| Err(format!("fault `{label}`: {what}"));
        if label.chars().count() > NAME {
            return Err(format!("a fault's name has at most {NAME} characters"));
        }
        if self.until.is_some_and(|until| until.0 <= self.from.0) {
            return wrong("until must be later than from");
        }
        if self.every == Some(0) {
            return wrong("every is at least 1");
        }
        if self.service == FaultService::Sts && (self.bucket.is_some() || self.prefix.is_some()) {
            return wrong("STS knows no bucket and no prefix; use tenant");
        }
        let is_refusal = self.action == FaultAction::Common(CommonFault::RefuseConnections);
        if is_refusal && self.has_scope() {
            return wrong("a new connection has no operation, bucket, prefix or tenant yet");
        }
        if matches!(&self.action, FaultAction::Common(CommonFault::Bandwidth(rate)) if rate.0 == 0)
        {
            return wrong("bandwidth is at least 1; use stall for none at all");
        }
        let is_narrowed = !self.operations.is_empty()
            || self.bucket.is_some()
            || self.prefix.is_some()
            || self.share.is_some()
            || self.every.is_some()
            || self.times.is_some()
            || self.until.is_some();
        if self.is_event() && is_narrowed {
            return wrong("revoke-keys is an event; it takes from and tenant only");
        }
        if let Some(unknown) = self
            .operations
            .iter()
            .find(|name| !self.service.knows(name))
        {
            return wrong(&format!(
                "{} has no operation `{unknown}`; docs/faults.md says where those of COS are named, STS has {}",
                self.service.name(),
                STS_ACTIONS.join(", ")
            ));
        }
        Ok(())
    }
}

impl FaultService {
    fn name(self) -> &'static str {
        match self {
            Self::Cos => "cos",
            Self::Sts => "sts",
        }
    }

    fn knows(self, operation: &str) -> bool {
        match self {
            Self::Cos => is_operation(operation),
            Self::Sts => STS_ACTIONS.contains(&operation),
        }
    }
}

impl FaultAction {
    fn written(&self) -> Value {
        let written = match self {
            Self::Common(fault) => serde_json::to_value(fault),
            Self::Cos(fault) => serde_json::to_value(fault),
            Self::Sts(fault) => serde_json::to_value(fault),
        };
        written.unwrap_or_default() // only names, numbers and text
    }

    fn read(service: FaultService, written: Value) -> Result<Self, String> {
        let name = match &written {
            Value::String(name) => name.as_str(),
            Value::Object(fields) => fields.keys().next().map_or("", String::as_str),
            _ => "",
        };
        let refused = |error: serde_json::Error| {
            format!("do: {error} (either service: {})", COMMON.join(", "))
        };
        if COMMON.contains(&name) {
            let hint = if name == "latency" {
                "; write \"300ms\", { mean = \"200ms\", deviation = \"50ms\" } or { median = \"20ms\", p99 = \"2s\" }"
            } else {
                ""
            };
            return serde_json::from_value(written)
                .map(Self::Common)
                .map_err(|error| format!("do: {error}{hint}"));
        }
        match service {
            FaultService::Cos => serde_json::from_value(written).map(Self::Cos),
            FaultService::Sts => serde_json::from_value(written).map(Self::Sts),
        }
        .map_err(refused)
    }
}

/// A fault in its written form.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    service: FaultService,
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    operation: OneOrMany,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<Share>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    from: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Span>,
    #[serde(rename = "do")]
    action: Value,
}

/// One name, or a list of names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Many(names) if names.is_empty())
    }
}

impl TryFrom<FaultText> for FaultEntry {
    type Error = String;

    fn try_from(text: FaultText) -> Result<Self, String> {
        let fault = Self {
            name: text.name,
            service: text.service,
            operations: match text.operation {
                OneOrMany::One(name) => vec![name],
                OneOrMany::Many(names) => names,
            },
            bucket: text.bucket,
            prefix: text.prefix,
            tenant: text.tenant,
            share: text.share,
            every: text.every,
            times: text.times,
            from: text.from,
            until: text.until,
            action: FaultAction::read(text.service, text.action)?,
        };
        fault.check()?;
        Ok(fault)
    }
}

impl From<FaultEntry> for FaultText {
    fn from(fault: FaultEntry) -> Self {
        Self {
            action: fault.action.written(),
            name: fault.name,
            service: fault.service,
            operation: OneOrMany::Many(fault.operations),
            bucket: fault.bucket,
            prefix: fault.prefix,
            tenant: fault.tenant,
            share: fault.share,
            every: fault.every,
            times: fault.times,
            from: fault.from,
            until: fault.until,
        }
    }
}

fn is_zero(span: &Span) -> bool {
    span.0.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<FaultFile, String> {
        FaultFile::parse("faults.toml", text)
    }

    fn fault(rest: &str) -> Result<FaultEntry, String> {
        let file = file(&format!("[[faults]]\n{rest}"))?;
        Ok(file.faults.into_iter().next().unwrap())
    }

    #[test]
    fn reads_the_short_form() {
        let faults: Faults = serde_json::from_str(
            r#"{"sts":{"error":"InternalError"},"cos":{"reset-after-sent":1000},"cos_times":1}"#,
        )
        .unwrap();
        assert_eq!(faults.sts, Some(StsFault::Error("InternalError".into())));
        assert_eq!(faults.cos, Some(CosFault::ResetAfterSent(1000)));
        assert!(serde_json::from_str::<Faults>(r#"{"cos":"slow-down","oops":1}"#).is_err());
    }

    #[test]
    fn reads_toml_and_json_alike() {
        let toml = file(
            "seed = 7\n[[faults]]\nservice = \"cos\"\noperation = \"PutObject\"\nshare = \"5%\"\nfrom = \"1s\"\nuntil = \"2s\"\ndo = { latency = { median = \"20ms\", p99 = \"2s\" } }\n[[faults]]\nservice = \"sts\"\ntimes = 2\ndo = \"down\"\n",
        )
        .unwrap();
        let json = serde_json::to_string(&toml).unwrap();
        assert_eq!(FaultFile::parse("faults.JSON", &json), Ok(toml.clone()));
        let latency = FaultLatency::LongTail {
            median: "20ms".parse().unwrap(),
            p99: "2s".parse().unwrap(),
        };
        assert_eq!(
            toml.faults[0],
            FaultEntry {
                operations: vec!["PutObject".into()],
                share: Some(Share(0.05)),
                from: "1s".parse().unwrap(),
                until: Some("2s".parse().unwrap()),
                ..FaultEntry::common(FaultService::Cos, CommonFault::Latency(latency))
            }
        );
        assert_eq!(toml.faults[1].times, Some(2));
    }

    #[test]
    fn rejects_impossible_faults_with_a_reason() {
        for (rest, reason) in [
            ("service = \"cos\"\ndo = \"nonsense\"", "expected one of"),
            ("service = \"sts\"\ndo = \"slow-down\"", "expected one of"),
            (
                "service = \"sts\"\nprefix = \"a/\"\ndo = \"down\"",
                "use tenant",
            ),
            (
                "service = \"cos\"\noperation = \"PutObjekt\"\ndo = \"reset\"",
                "no operation `PutObjekt`",
            ),
            (
                "service = \"cos\"\nfrom = \"2s\"\nuntil = \"1s\"\ndo = \"reset\"",
                "later than from",
            ),
            ("service = \"cos\"\nevery = 0\ndo = \"reset\"", "at least 1"),
            (
                "service = \"cos\"\nshare = \"101%\"\ndo = \"reset\"",
                "not a share",
            ),
            ("service = \"cos\"\ndo = { latency = \"fast\" }", "median"),
            ("service = \"cos\"\ndo = { bandwidth = \"0\" }", "use stall"),
            (
                "service = \"cos\"\nuntil = \"1s\"\ndo = \"revoke-keys\"",
                "an event",
            ),
            (
                "service = \"cos\"\ntenant = \"a\"\ndo = \"refuse-connections\"",
                "no operation",
            ),
            ("do = \"reset\"", "service"),
            ("service = \"cos\"\ndo = \"reset\"\noops = 1", "oops"),
        ] {
            let error = fault(rest).unwrap_err();
            assert!(error.contains(reason), "{rest}: {error}");
        }
    }

    #[test]
    fn lists_every_common_fault_by_name() {
        let all = [
            CommonFault::Bandwidth(ByteSize(1)),
            CommonFault::ClockOffset(-1),
            CommonFault::Latency(FaultLatency::Fixed(Span::default())),
            CommonFault::RefuseConnections,
        ];
        for (fault, name) in all.into_iter().zip(COMMON) {
            let fault = FaultEntry::common(FaultService::Sts, fault);
            assert!(fault.action.written().to_string().contains(name));
            let text = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<FaultEntry>(&text).unwrap(), fault);
        }
    }

    #[test]
    fn labels_unnamed_fault_by_its_action() {
        let label = |rest| fault(rest).unwrap().label();
        assert_eq!(
            label("service = \"cos\"\ndo = { latency = \"200ms\" }"),
            "cos latency 200ms"
        );
        assert_eq!(label("service = \"sts\"\ndo = \"down\""), "sts down");
        assert_eq!(
            label("service = \"sts\"\nname = \"outage\"\ndo = \"down\""),
            "outage"
        );
    }
}
