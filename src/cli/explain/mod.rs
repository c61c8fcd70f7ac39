//! `cosgate explain`: what would become of a request, step by step, without sending it.

mod explanation;
mod head;
mod upstream;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use cosgate::clock::wall_clock;
use cosgate::config::{Config, Listen, SessionPolicy};
use cosgate::decision::{
    Decision, Forward, LocalResponse, PayloadPlan, Refusal, Service, Step, Verdict, decide,
    preflight, service,
};
use cosgate::error::S3Error;
use cosgate::rewrite::Requirement;
use cosgate::s3::hoisted::in_s3_words;
use cosgate::s3::{Operation, S3Request};
use cosgate::tenant::{
    Authenticated, Connection, Identity, PageRequest, Tenant, Tenants, UnixUser,
};
use http::Method;
use http::request::Parts;

use self::explanation::{
    Explanation, GrantSummary, ShownResponse, describe, describe_grant, payload, permitted,
};
use self::head::{LengthAssumed, head};
use self::upstream::{UpstreamHead, key};
use super::{USAGE, check, credentials};

/// Say what would become of a request, and why: each step's verdict, the request that COS would get,
/// and the policy inside the temporary key.
///
/// Nothing is contacted, and no secret is needed or shown. Exit status: 0 if the request would be sent
/// or served here, 1 if it would be refused, 2 if the configuration or an argument is wrong.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:
  cosgate explain -c /etc/cosgate.toml -t acme GET /photos/acme/x.jpg
  cosgate explain -c /etc/cosgate.toml -t acme PUT http://photos.s3.localhost/acme/x.jpg -H 'x-amz-acl: private'
  cosgate explain -c /etc/cosgate.toml -t acme GET '/photos?list-type=2&prefix=other/' --format json
  cosgate explain -c /etc/cosgate.toml -t acme PUT /photos/acme/x.jpg -H 'Origin: https://app.example.com'
  cosgate explain -c /etc/cosgate.toml --anonymous GET http://127.0.0.1:9000/photos/public/x",
    group = ArgGroup::new("caller").required(true).args(["tenant", "anonymous", "uid"])
)]
pub(super) struct Arguments {
    /// The TOML file that names the tenant; variables that it names need not be set
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The calling tenant; no signature is needed. A template's tenant is TEMPLATE/SUBJECT
    #[arg(long, short, value_name = "NAME")]
    tenant: Option<String>,
    /// The caller uses session keys of the tenant, issued with the `Policy` in this file (AWS's JSON)
    #[arg(long, value_name = "FILE", requires = "tenant")]
    session_policy: Option<PathBuf>,
    /// The caller is unknown, on this machine if the listener is loopback, or as the user that runs cosgate
    /// if it is a Unix socket
    #[arg(long)]
    anonymous: bool,
    /// The caller is the user of this machine who has this number, by the Unix socket
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// A header of the request, `name: value`; may be given again
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// For people, or for machines
    #[arg(long, short, value_enum, default_value_t = ExplainFormat::Text)]
    format: ExplainFormat,
    /// GET, PUT, …
    method: Method,
    /// A whole URL, or its path alone
    url: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExplainFormat {
    /// One JSON object
    Json,
    /// Lines
    Text,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Some(config) = check::load_without_secrets(&arguments.config) else {
        return ExitCode::from(USAGE);
    };
    let tenants = Tenants::new(&config);
    let (caller, head) = match read(arguments, &config, &tenants) {
        Ok(request) => request,
        Err(wrong) => {
            super::complain(&wrong);
            return ExitCode::from(USAGE);
        }
    };
    let mut explanation = Explanation::default();
    let explained = explanation.explain(&config, &tenants, &caller, &head);
    let verdict = explained.unwrap_or_else(|(step, error)| {
        explanation.refuse(step, &error);
        Verdict::of_error(&error, step)
    });
    explanation.verdict = verdict.as_str();
    let text = match arguments.format {
        ExplainFormat::Json => {
            serde_json::to_string_pretty(&explanation).unwrap_or_default() + "\n"
        }
        ExplainFormat::Text => explanation.text(),
    };
    let printed = super::printed(&text);
    match verdict {
        Verdict::Allowed | Verdict::Local => printed,
        Verdict::Failed | Verdict::Refused => ExitCode::FAILURE,
    }
}

/// Who is assumed to send the request.
enum AssumedCaller {
    /// This tenant, taken at its word.
    Named(Arc<Tenant>),
    /// Nobody known, or this user of a Unix socket.
    Unsigned(Option<UnixUser>),
}

/// Reads who calls, and the head that they would send.
fn read(
    arguments: &Arguments,
    config: &Config,
    tenants: &Tenants,
) -> Result<(AssumedCaller, Parts), String> {
    let caller = match (&arguments.tenant, &config.server.listen) {
        (Some(name), _) => {
            let tenant = tenants.named(name);
            let tenant = tenant.ok_or_else(|| unknown_tenant(name, config))?;
            AssumedCaller::Named(match &arguments.session_policy {
                Some(path) => Arc::new(tenant.narrowed(&Arc::new(session_policy(path)?))),
                None => tenant,
            })
        }
        (None, Listen::Tcp(_)) if arguments.uid.is_some() => {
            return Err("cosgate: error: no user comes by a Unix socket: `listen` is an address\n  help: give --tenant or --anonymous".to_owned());
        }
        (None, Listen::Tcp(_)) => AssumedCaller::Unsigned(None),
        (None, Listen::Unix(_)) => AssumedCaller::Unsigned(Some(UnixUser {
            uid: arguments.uid.unwrap_or(u32::MAX), // no user's number
            is_own: arguments.anonymous,
        })),
    };
    let head = head(arguments, config)?;
    check_service(&head, &config.server.domains)?;
    Ok((caller, head))
}

fn session_policy(path: &Path) -> Result<SessionPolicy, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cosgate: error: cannot read {shown}: {error}"))?;
    SessionPolicy::parse(&text).map_err(|error| {
        format!(
            "cosgate: error: in {shown}, {}\n  help: {}",
            error.message, error.fix
        )
    })
}

/// Refuses what its body decides: nobody gives a body here.
fn check_service(head: &Parts, domains: &[String]) -> Result<(), String> {
    let posts = |requested: S3Request<'_>| requested.operation == Operation::PostObject;
    let what = match service(head, domains) {
        Service::S3 if S3Request::parse(head, domains).is_ok_and(posts) => "a browser's form",
        Service::S3 | Service::Preflight => return Ok(()),
        Service::Sts => "a call for session keys",
        Service::Vend => "a call for temporary keys",
    };
    Err(format!(
        "cosgate: error: this is {what}, which cosgate decides by its body\n  help: explain the PUT or GET that it is for"
    ))
}

impl Explanation {
    /// A request's life, up to where it would be sent.
    fn explain(
        &mut self,
        config: &Config,
        tenants: &Tenants,
        caller: &AssumedCaller,
        head: &Parts,
    ) -> Result<Verdict, (Step, S3Error)> {
        let at = |step| move |error| (step, error);
        let domains = &config.server.domains;
        if service(head, domains) == Service::Preflight {
            let response = preflight(head, domains, tenants.cors());
            self.preflight(&response.map_err(at(Step::Authorize))?);
            return Ok(Verdict::Local);
        }
        let s3_head = in_s3_words(head, domains).map_err(at(Step::Parse))?;
        let s3_head = &*s3_head;
        let requested = S3Request::parse(s3_head, domains).map_err(at(Step::Parse))?;
        let bucket = requested.bucket.as_deref().map(str::to_owned);
        self.add(Step::Parse, describe(&requested));
        let caller = match caller {
            AssumedCaller::Named(tenant) => tenants.assume(tenant, head),
            AssumedCaller::Unsigned(user) => {
                let connection = connection(config, *user);
                tenants.authenticate(head, &requested, connection, wall_clock())
            }
        };
        let caller = caller.map_err(at(Step::Authenticate))?;
        self.add(Step::Authenticate, known(&caller));
        let tenant = caller.tenant();
        let rules = tenants.cors();
        self.cross_origin(&rules.for_tenant(&PageRequest::read(head), bucket.as_deref(), tenant));
        if tenant.limits.is_some() {
            let text = "the tenant has limits of its own; what is used of them only `serve` knows";
            self.add(Step::Limit, text.to_owned());
        }
        let decision = decide(s3_head, requested, &caller, config, Duration::ZERO);
        let verdict = decision.verdict();
        match decision {
            Decision::Forward(forward) => {
                let length_assumed = head.extensions.get::<LengthAssumed>().is_some();
                self.forward(forward, config, length_assumed)?;
            }
            Decision::Local(local) => self.local(local),
            Decision::Refuse(Refusal {
                step,
                error,
                permit,
            }) => {
                match permit {
                    Some(permit) if step != Step::Authorize => {
                        self.add(Step::Authorize, permitted(&permit));
                    }
                    Some(_) => {}
                    None => self.grants = tenant.grants.iter().map(GrantSummary::from).collect(),
                }
                self.refuse(step, &error);
            }
        }
        Ok(verdict)
    }

    /// What COS would get.
    fn forward(
        &mut self,
        forward: Forward<'_, '_>,
        config: &Config,
        length_assumed: bool,
    ) -> Result<(), (Step, S3Error)> {
        let Forward {
            permit,
            request,
            prechecks,
            payload: plan,
        } = forward;
        self.add(Step::Authorize, permitted(&permit));
        let first = match prechecks.first().map(|precheck| precheck.required) {
            None => "",
            Some(Requirement::Fail) => {
                "; but only a HEAD is sent, and then 416: each object is one part"
            }
            Some(Requirement::Absent | Requirement::Hold) => {
                "; a HEAD comes first, since COS does not document that it keeps the condition"
            }
        };
        self.add(
            Step::Rewrite,
            format!("the head that COS would get is below{first}"),
        );
        self.add(Step::Payload, payload(&plan, length_assumed));
        let key = key(config, permit.tenant());
        self.add(Step::Credential, key.describe());
        self.credential = Some(key);
        let sha256 = match &plan {
            PayloadPlan::Object(plan) => plan.declared.mode.sha256(),
            PayloadPlan::Document(_) | PayloadPlan::Empty => None,
        };
        let upstream = UpstreamHead::signed(request, config, &permit, sha256);
        self.upstream = Some(upstream.map_err(|error| (Step::Upstream, error))?);
        self.add(Step::Upstream, "would get the request".to_owned());
        Ok(())
    }

    /// What would be served here.
    fn local(&mut self, local: LocalResponse<'_, '_>) {
        let own = match local.permit.grant() {
            Some(grant) => format!("the tenant's own bucket {}", describe_grant(grant)),
            None => "a tenant may see its own buckets".to_owned(),
        };
        self.add(Step::Authorize, own);
        self.response = Some(ShownResponse {
            status: local.response.status().as_u16(),
            body: local.response.into_body(),
        });
    }
}

/// The connection of an unsigned request, which comes from this machine.
fn connection(config: &Config, user: Option<UnixUser>) -> Connection {
    Connection {
        loopback: user.is_none()
            && config.server.listen.is_local()
            && !config.server.loopback_is_proxy,
        tls: config.server.tls.is_some(),
        certificate: None,
        user,
        address: user.is_none().then(|| Ipv4Addr::LOCALHOST.into()),
    }
}

fn known(caller: &Authenticated) -> String {
    let tenant = &caller.tenant().name;
    match caller.identity() {
        Identity::Assumed => {
            format!("taken to be the tenant {tenant}; no signature is checked")
        }
        Identity::Unix(uid) => format!("the user {uid}: the tenant {tenant}"),
        _ => format!("anonymous: the tenant {tenant}"),
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
