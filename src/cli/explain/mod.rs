//! `cosgate explain`: what would become of a request, step by step, without sending it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use cosgate::body::Answer;
use cosgate::config::{Config, IssuerKind, Listen};
use cosgate::credentials::sts::{ACTION, ASSUME_ROLE, WEB_IDENTITY};
use cosgate::credentials::{Credential, audit_name, session_name};
use cosgate::observe::{Step, Verdict};
use cosgate::payload::checksum::Checks;
use cosgate::payload::{Declared, Framing, Mode};
use cosgate::proxy::{answer_locally, sign};
use cosgate::rewrite::{self, UpstreamRequest};
use cosgate::s3::{S3Error, S3Request, native};
use cosgate::secret::Secret;
use cosgate::server::wall_clock;
use cosgate::tenant::policy::{Policy, tenant_policy};
use cosgate::tenant::{Connection, Grant, Identity, Permit, Tenant, Tenants, UnixUser};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;

use super::{USAGE, check, credentials};

/// Stands in for a key that is not asked for. What is made with it is never shown.
const NO_KEY: &str = "none";

/// Say what would become of a request, and why: each step's verdict, the request that COS would get,
/// and the policy inside the temporary key.
///
/// Nothing is contacted, and no secret is needed or shown. Exit status: 0 if the request would be sent
/// or answered here, 1 if it would be refused, 2 if the configuration or an argument is wrong.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:
  cosgate explain -c /etc/cosgate.toml -t acme GET /photos/acme/x.jpg
  cosgate explain -c /etc/cosgate.toml -t acme PUT http://photos.s3.localhost/acme/x.jpg -H 'x-amz-acl: private'
  cosgate explain -c /etc/cosgate.toml -t acme GET '/photos?list-type=2&prefix=other/' --format json
  cosgate explain -c /etc/cosgate.toml --anonymous GET http://127.0.0.1:9000/photos/public/x",
    group = ArgGroup::new("caller").required(true).args(["tenant", "anonymous", "uid"])
)]
pub(super) struct Arguments {
    /// The TOML file that names the tenant; variables that it names need not be set
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Who asks, taken at their word: no signature is needed. A template's tenant is TEMPLATE/SUBJECT
    #[arg(long, short, value_name = "NAME")]
    tenant: Option<String>,
    /// Nobody known asks, on this machine if the listener is loopback, or as the user that runs cosgate
    /// if it is a Unix socket
    #[arg(long)]
    anonymous: bool,
    /// The user of this machine who has this number asks, by the Unix socket
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// A header of the request, `name: value`; may be given again
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// For people, or for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// GET, PUT, …
    method: Method,
    /// A whole URL, or its path alone
    url: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One JSON object
    Json,
    /// Lines
    Text,
}

/// The request was given no `Content-Length`, which a client would send.
#[derive(Clone)]
struct LengthAssumed;

/// All that is said of one request.
#[derive(Default, Serialize)]
struct Explanation {
    verdict: &'static str,
    steps: Vec<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Local>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Upstream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Key>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<Shown>,
}

/// What the tenant has, for whoever wonders why it was refused.
#[derive(Serialize)]
struct Shown {
    grant: String,
    actions: Vec<String>,
}

/// What one step says.
#[derive(Serialize)]
struct Line {
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    says: String,
}

#[derive(Serialize)]
struct Refused {
    status: u16,
    code: &'static str,
}

/// An answer that is made here.
#[derive(Serialize)]
struct Local {
    status: u16,
    body: String,
}

/// The head that COS would get.
#[derive(Serialize)]
struct Upstream {
    method: String,
    scheme: &'static str,
    authority: String,
    target: String,
    headers: Vec<(String, String)>,
}

/// The temporary key that would sign it.
#[derive(Serialize)]
struct Key {
    issuer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
    policy_bytes: usize,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Some(config) = check::load_without_secrets(&arguments.config) else {
        return ExitCode::from(USAGE);
    };
    let tenants = Tenants::new(&config);
    let named = arguments.tenant.as_deref().map(|name| {
        let found = tenants.named(name);
        found.ok_or_else(|| unknown_tenant(name, &config))
    });
    let explained = named
        .transpose()
        .and_then(|tenant| Ok((tenant, head(arguments, &config)?)));
    let (tenant, head) = match explained {
        Ok(explained) => explained,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(USAGE);
        }
    };
    let mut explanation = Explanation::default();
    let user = match config.server.listen {
        Listen::Tcp(_) if arguments.uid.is_some() => {
            eprintln!(
                "cosgate: error: no user comes by a Unix socket: `listen` is an address\n  help: give --tenant or --anonymous"
            );
            return ExitCode::from(USAGE);
        }
        Listen::Tcp(_) => None,
        Listen::Unix(_) => Some(UnixUser {
            uid: arguments.uid.unwrap_or(u32::MAX), // no user's number
            is_own: arguments.anonymous,
        }),
    };
    let verdict = match explanation.walk(&config, &tenants, tenant.as_deref(), user, &head) {
        Ok(verdict) => verdict,
        Err((step, error)) => {
            explanation.refuse(step, &error);
            Verdict::Refused
        }
    };
    explanation.verdict = verdict.as_str();
    match arguments.format {
        Format::Json => {
            println!(
                "{}",
                serde_json::to_string_pretty(&explanation).unwrap_or_default()
            );
        }
        Format::Text => print!("{}", explanation.text()),
    }
    match verdict {
        Verdict::Allowed | Verdict::AnsweredHere => ExitCode::SUCCESS,
        Verdict::Failed | Verdict::Refused => ExitCode::FAILURE,
    }
}

impl Explanation {
    /// A request's life, as `Proxy::forward` tells it, up to where it would be sent.
    fn walk(
        &mut self,
        config: &Config,
        tenants: &Tenants,
        named: Option<&Tenant>,
        user: Option<UnixUser>,
        head: &Parts,
    ) -> Result<Verdict, (Step, S3Error)> {
        let at = |step| move |error| (step, error);
        let domains = &config.server.domains;
        let native = native::to_s3(head, domains).map_err(at(Step::Parse))?;
        let said = native.as_ref().unwrap_or(head); // in S3's words
        let asked = S3Request::parse(said, domains).map_err(at(Step::Parse))?;
        self.say(Step::Parse, describe(&asked));
        let connection = Connection {
            loopback: user.is_none() && config.server.listen.is_local(),
            tls: config.server.tls.is_some(),
            certificate: None,
            user,
            address: user.is_none().then(|| Ipv4Addr::LOCALHOST.into()),
        };
        let who = |asked| {
            let caller = tenants.authenticate(head, asked, connection, wall_clock());
            caller.map_err(at(Step::Authenticate))
        };
        let caller;
        let (tenant, permit, mode) = if let Some(tenant) = named {
            if native.is_some() && !config.server.allow_qsign {
                who(&asked)?; // it is refused whoever signs
            }
            let says = format!(
                "taken to be the tenant {}; no signature is looked at",
                tenant.name
            );
            self.say(Step::Authenticate, says);
            let mode = claimed_mode(said).map_err(at(Step::Authenticate))?;
            (tenant, Permit::assumed(tenant, asked), mode)
        } else {
            caller = who(&asked)?;
            let tenant = caller.tenant();
            let known = match caller.identity() {
                Identity::Unix(uid) => format!("the user {uid}"),
                _ => "anonymous".to_owned(),
            };
            self.say(
                Step::Authenticate,
                format!("{known}: the tenant {}", tenant.name),
            );
            (tenant, caller.authorize(asked), caller.payload())
        };
        if tenant.limits.is_some() {
            let says = "the tenant has limits of its own; what is used of them only `serve` knows";
            self.say(Step::Limit, says.to_owned());
        }
        let permit = permit.map_err(|error| {
            self.grants = tenant.grants.iter().map(Shown::from).collect();
            (Step::Authorize, error)
        })?;

        let local = answer_locally(&permit, &config.server.region).map_err(at(Step::Authorize))?;
        if let Some(answer) = local {
            let status = answer.status().as_u16();
            let body = match answer.into_body() {
                Answer::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Answer::Empty | Answer::Stream(_) => String::new(),
            };
            let own = match permit.grant() {
                Some(grant) => format!("the tenant's own bucket {}", describe_grant(grant)),
                None => "a tenant may see its own buckets".to_owned(),
            };
            self.say(Step::Authorize, own);
            self.answer = Some(Local { status, body });
            return Ok(Verdict::AnsweredHere);
        }

        self.say(Step::Authorize, permitted(&permit));
        let fresh = rewrite::request(&permit, said, &config.upstream).map_err(at(Step::Rewrite))?;
        self.say(
            Step::Rewrite,
            "the head that COS would get is below".to_owned(),
        );
        let body = payload(&permit, said, mode).map_err(at(Step::Payload))?;
        self.say(Step::Payload, body);
        let key = key(config, permit.tenant());
        self.say(Step::Credential, key.describe());
        self.credential = Some(key);
        let upstream =
            Upstream::signed(fresh, config, &permit, mode).map_err(at(Step::Upstream))?;
        self.upstream = Some(upstream);
        self.say(Step::Upstream, "would be asked".to_owned());
        Ok(Verdict::Allowed)
    }

    fn say(&mut self, step: Step, says: String) {
        self.steps.push(Line {
            step: step.as_str(),
            refused: None,
            says,
        });
    }

    fn refuse(&mut self, step: Step, error: &S3Error) {
        self.steps.push(Line {
            step: step.as_str(),
            refused: Some(Refused {
                status: error.http_status().as_u16(),
                code: error.code().as_str(),
            }),
            says: error.message().to_owned(),
        });
    }

    /// For people.
    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.steps {
            let _ = match &line.refused {
                None => writeln!(text, "{:<13} {}", line.step, line.says),
                Some(Refused { status, code }) => writeln!(
                    text,
                    "{:<13} refused with {status} {code}: {}",
                    line.step, line.says
                ),
            };
        }
        let _ = writeln!(text, "verdict       {}", self.verdict);
        for Shown { grant, actions } in &self.grants {
            let _ = writeln!(text, "\ngranted: {grant}\n  {}", actions.join("\n  "));
        }
        if let Some(answer) = &self.answer {
            let _ = writeln!(
                text,
                "\nthe answer: status {}\n{}",
                answer.status, answer.body
            );
        }
        if let Some(upstream) = &self.upstream {
            let Upstream {
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

impl Upstream {
    /// The head, signed with a key that is none; what comes of the key is left out again.
    fn signed(
        mut fresh: UpstreamRequest,
        config: &Config,
        permit: &Permit<'_, '_>,
        mode: Mode,
    ) -> Result<Self, S3Error> {
        let token = match issuer_kind(config, permit.tenant()) {
            Some(IssuerKind::Static(key)) if key.token.is_none() => None,
            _ => Some(Secret::new(NO_KEY)),
        };
        let region = permit.grant().map_or("", |grant| grant.region.as_str());
        let nobody = Credential::new(NO_KEY.to_owned(), Secret::new(NO_KEY), token, None);
        if let Ok(nobody) = nobody {
            let signature = config.upstream.signature;
            sign(
                &mut fresh,
                signature,
                &nobody,
                region,
                mode.sha256(),
                wall_clock(),
            )?;
        }
        let is_document = permit.request().operation.has_xml_body();
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = match name.as_str() {
                "authorization" => "<signature>".to_owned(),
                "x-amz-content-sha256" if is_document => "<SHA-256 of the document>".to_owned(),
                "x-amz-date" => "<time of signing>".to_owned(),
                "x-amz-security-token" | "x-cos-security-token" => "<session token>".to_owned(),
                // A customer's own encryption key, where a grant lets one pass.
                name if name.ends_with("-customer-key") => "<secret>".to_owned(),
                _ => String::from_utf8_lossy(value.as_bytes())
                    .escape_debug()
                    .to_string(),
            };
            (name.as_str().to_owned(), value)
        };
        Ok(Self {
            method: fresh.method.to_string(),
            scheme: if fresh.tls { "https" } else { "http" },
            headers: fresh.headers.iter().map(shown).collect(),
            authority: fresh.authority,
            target: fresh.target,
        })
    }
}

impl From<&Grant> for Shown {
    fn from(grant: &Grant) -> Self {
        Self {
            grant: describe_grant(grant),
            actions: grant.actions.clone(),
        }
    }
}

impl Key {
    fn describe(&self) -> String {
        let Self {
            issuer,
            policy_bytes,
            ..
        } = self;
        let (Some(action), Some(name), Some(seconds)) =
            (self.action, &self.name, self.duration_seconds)
        else {
            return format!("the issuer {issuer}'s own key, which no policy fences");
        };
        let parameter = if action == ACTION {
            "Name"
        } else {
            "RoleSessionName"
        };
        let policy = match &self.policy {
            Some(_) => format!("with a policy of {policy_bytes} bytes"),
            None => "which no policy fences".to_owned(),
        };
        format!("{action} by the issuer {issuer}, {parameter} {name}, for {seconds} s, {policy}")
    }
}

/// What the issuer would be asked for.
fn key(config: &Config, tenant: &Tenant) -> Key {
    let issuer = issuer(config, tenant);
    let (action, name) = match issuer.map(|issuer| &issuer.kind) {
        Some(IssuerKind::AssumeRole { role, .. }) => (
            Some(ASSUME_ROLE),
            Some(session_name(&role.session_name, &tenant.name)),
        ),
        Some(IssuerKind::Federation { .. }) => (Some(ACTION), Some(audit_name(&tenant.name))),
        Some(IssuerKind::WebIdentity(web)) => (
            Some(WEB_IDENTITY),
            Some(session_name(&web.session_name, &tenant.name)),
        ),
        Some(IssuerKind::Static(_)) | None => (None, None),
    };
    let duration = issuer.and_then(|issuer| issuer.kind.duration());
    let is_fenced = matches!(action, Some(ACTION | ASSUME_ROLE));
    let policy = is_fenced.then(|| tenant_policy(tenant));
    Key {
        issuer: issuer.map_or_else(String::new, |issuer| issuer.name.clone()),
        action,
        name,
        duration_seconds: duration.map(|duration| duration.as_secs()),
        policy_bytes: policy.as_ref().map_or(0, |policy| policy.json().len()),
        policy,
    }
}

fn unknown_tenant(name: &str, config: &Config) -> String {
    let template = name.split('/').next().unwrap_or_default();
    if !config.templates.iter().any(|known| known.name == template) {
        return credentials::unknown_tenant(name, config);
    }
    format!(
        "cosgate: error: the template `{template}` makes no tenant `{}`\n  help: write {template}/ and \
         what a token's claims would say, as the access log does: {template}/SUBJECT",
        name.escape_debug()
    )
}

fn issuer<'c>(config: &'c Config, tenant: &Tenant) -> Option<&'c cosgate::config::Issuer> {
    let of_tenant = config.tenants.get(tenant.index).map(|tenant| tenant.issuer);
    let of_template = || {
        let index = tenant.index.checked_sub(config.tenants.len())?;
        config.templates.get(index).map(|template| template.issuer)
    };
    config.issuers.get(of_tenant.or_else(of_template)?)
}

fn issuer_kind<'c>(config: &'c Config, tenant: &Tenant) -> Option<&'c IssuerKind> {
    issuer(config, tenant).map(|issuer| &issuer.kind)
}

fn describe(asked: &S3Request<'_>) -> String {
    let mut text = format!("{:?}", asked.operation);
    if let Some(bucket) = asked.bucket {
        let _ = write!(text, ", bucket {bucket:?}");
    }
    if let Some(key) = &asked.key {
        let _ = write!(text, ", key {:?}", key.as_str());
    }
    for (name, value) in asked.upstream_query() {
        let _ = write!(text, ", {name}={value:?}");
    }
    if let Some(source) = &asked.copy_source {
        let _ = write!(
            text,
            ", from bucket {:?}, key {:?}",
            source.bucket,
            source.key.as_str()
        );
    }
    text
}

fn permitted(permit: &Permit<'_, '_>) -> String {
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

fn describe_grant(grant: &Grant) -> String {
    let prefixes: Vec<_> = grant.prefixes.iter().map(ToString::to_string).collect();
    format!(
        "{} ({} in {}, prefixes {})",
        grant.alias,
        grant.bucket,
        grant.region,
        prefixes.join(" ")
    )
}

/// What the head says of its body: an unsigned request may say it too.
fn claimed_mode(head: &Parts) -> Result<Mode, S3Error> {
    let value = head.headers.get("x-amz-content-sha256");
    let text = value.and_then(|value| value.to_str().ok());
    text.map_or(Ok(Mode::Unsigned), Mode::parse)
}

/// How the body would go on.
fn payload(permit: &Permit<'_, '_>, head: &Parts, mode: Mode) -> Result<String, S3Error> {
    let operation = permit.request().operation;
    if operation.has_xml_body() {
        return Ok(
            "a document, read whole, parsed and written anew; COS gets its Content-Length and Content-MD5 too".to_owned(),
        );
    }
    if !operation.takes_object_body() {
        return Ok("none".to_owned());
    }
    let declared = Declared::read(mode, &head.headers)?;
    Checks::new(&declared, &head.headers)?;
    let limits = permit.tenant().limits(Duration::ZERO);
    if let (Some(limits), Some(length)) = (limits, declared.length) {
        limits.check_object(length)?;
    }
    let framing = match declared.framing {
        Framing::AwsChunked => "unpacked from aws-chunked",
        Framing::Plain => "as it comes",
    };
    let length = match declared.length {
        Some(length) if head.extensions.get::<LengthAssumed>().is_none() => {
            format!("{length} bytes")
        }
        _ => "as many bytes as its Content-Length says".to_owned(),
    };
    Ok(format!(
        "an object, {framing}, {length}, checked as it streams; its end is held back until all is well"
    ))
}

/// The client's head.
fn head(arguments: &Arguments, config: &Config) -> Result<Parts, String> {
    let wrong = |what: &str, help: &str| format!("cosgate: error: {what}\n  help: {help}");
    let url = arguments.url.as_str();
    let (host, target) = match url.split_once("://") {
        _ if url.starts_with('/') => {
            let host = match config.server.listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(_) => "localhost".to_owned(),
            };
            (host, url.to_owned())
        }
        Some(("http" | "https", rest)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let slash = if target.starts_with('/') { "" } else { "/" };
            (host.to_owned(), format!("{slash}{target}"))
        }
        _ => {
            return Err(wrong(
                "the URL is neither a path nor begins with http:// or https://",
                "write /BUCKET/KEY, or the whole URL",
            ));
        }
    };
    if target.contains('#') {
        return Err(wrong(
            "the URL has a `#`: clients send nothing of what follows it",
            "write %23 for a `#` in a key",
        ));
    }
    let encode = "percent-encode it as a client would send it";
    let uri: Uri = target
        .parse()
        .map_err(|error| wrong(&format!("the URL cannot be sent: {error}"), encode))?;
    let given: Vec<_> = arguments
        .headers
        .iter()
        .map(|text| header(text))
        .collect::<Option<_>>()
        .ok_or_else(|| wrong("a header cannot be sent", "write it as 'name: value'"))?;
    let is_given = |name: &HeaderName| given.iter().any(|(given, _)| given == name);
    let mut request = http::Request::new(());
    *request.method_mut() = arguments.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    if !is_given(&HOST) {
        let host = HeaderValue::from_str(&host)
            .map_err(|_| wrong("the URL's host cannot be sent", encode))?;
        headers.insert(HOST, host);
    }
    for (name, value) in &given {
        headers.append(name, value.clone());
    }
    if matches!(arguments.method, Method::POST | Method::PUT)
        && ![CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(is_given)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        request.extensions_mut().insert(LengthAssumed);
    }
    Ok(request.into_parts().0)
}

/// `name: value`. What is wrong is not repeated: it may be a secret.
fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value.trim()).ok()?))
}
