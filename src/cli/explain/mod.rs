//! `cosgate explain`: what would become of a request, step by step, without sending it.

mod explanation;
mod head;
mod upstream;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use cosgate::body::Answer;
use cosgate::clock::wall_clock;
use cosgate::config::{Config, Listen};
use cosgate::error::S3Error;
use cosgate::observe::{Step, Verdict};
use cosgate::payload::checksum::Checks;
use cosgate::payload::{Declared, Framing, Mode};
use cosgate::proxy::answer_locally;
use cosgate::rewrite;
use cosgate::s3::hoisted::in_s3_words;
use cosgate::s3::{S3Request, native};
use cosgate::tenant::{Connection, Identity, Permit, Tenant, Tenants, UnixUser};
use http::Method;
use http::request::Parts;

use self::explanation::{Explanation, Local, Shown, describe, describe_grant, permitted};
use self::head::{LengthAssumed, head};
use self::upstream::{Upstream, key};
use super::{USAGE, check, credentials};

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
            super::complain(&wrong);
            return ExitCode::from(USAGE);
        }
    };
    let mut explanation = Explanation::default();
    let user = match config.server.listen {
        Listen::Tcp(_) if arguments.uid.is_some() => {
            super::complain(&format_args!(
                "cosgate: error: no user comes by a Unix socket: `listen` is an address\n  help: give --tenant or --anonymous"
            ));
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
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&explanation).unwrap_or_default() + "\n",
        Format::Text => explanation.text(),
    };
    let printed = super::printed(&text);
    match verdict {
        Verdict::Allowed | Verdict::AnsweredHere => printed,
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
        let said = in_s3_words(head, domains).map_err(at(Step::Parse))?;
        let said = &*said;
        let asked = S3Request::parse(said, domains).map_err(at(Step::Parse))?;
        self.say(Step::Parse, describe(&asked));
        let connection = Connection {
            loopback: user.is_none()
                && config.server.listen.is_local()
                && !config.server.loopback_is_proxy,
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
            if native::is_native(head) && !config.server.allow_qsign {
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

        let local = answer_locally(&permit, &said.headers, &config.server.region)
            .map_err(at(Step::Authorize))?;
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
        let looks = rewrite::looks(&permit, said, config.upstream.signature);
        let looks = looks.map_err(at(Step::Rewrite))?;
        let part = permit.request().part_read();
        let first = if looks.is_empty() {
            ""
        } else if part.is_some_and(|part| part > 1) {
            "; but only a HEAD is sent, and then 416: each object is one part"
        } else {
            "; a HEAD comes first, since COS is not known to keep the condition"
        };
        self.say(
            Step::Rewrite,
            format!("the head that COS would get is below{first}"),
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
