//! The configuration: accepted values, refused values, and the positions of problems.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that panics fails its test, as it should"
)]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use proptest::prelude::*;

use cosgate::config::{
    BaseKey, Config, EndpointTemplate, GivenKey, IssuerKind, Jwks, Location, PrefixPattern,
    Problem, Severity, Sources, TenantLimits, UpstreamSignature,
};
use cosgate::timestamp::Timestamp;

/// Marks the position of the problem in a test's text. It is removed before the text is parsed.
const MARK: char = '§';

const WHOLE: &str = r#"
[server]
listen = "127.0.0.1:9000"
[issuers.main]
kind = "federation"
secret_id = "env:ID"
secret_key = "env:KEY"
[tenants.acme]
issuer = "main"
access_keys = [{ id = "ACMEKEY0000000000001", secret = "env:ACME" }]
[[tenants.acme.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["acme/*"]
actions = ["read"]
"#;

/// A second tenant that does not overlap with the first.
const OTHER: &str = r#"
[tenants.other]
issuer = "main"
access_keys = [{ id = "OTHERKEY000000000001", secret = "env:OTHER" }]
[[tenants.other.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["other/*"]
actions = ["read"]
"#;

fn parse_with(
    text: &str,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let mut env: HashMap<&str, &str> = HashMap::from([
        ("ID", "AKID-of-the-issuer"),
        ("KEY", "key-of-the-issuer"),
        ("ACME", "secret-of-acme"),
        ("OTHER", "secret-of-other"),
    ]);
    env.extend(variables.iter().copied());
    let files: HashMap<PathBuf, &str> = files
        .iter()
        .map(|(path, text)| (PathBuf::from(path), *text))
        .collect();
    let file = |path: &Path| {
        let text = files.get(path).map(|text| (*text).to_owned());
        text.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let sources = Sources {
        env: &|name| env.get(name).map(|value| (*value).to_owned()),
        file: &file,
        env_names: &Vec::new,
        cores: 3,
        folder: &|folder| {
            let within = files.keys().filter(|path| path.parent() == Some(folder));
            let within: Vec<_> = within.cloned().collect();
            if within.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(within)
        },
        now: Timestamp::from_unix(1_780_000_000), // 2026-05-28
    };
    Config::parse("etc/config.toml", text, &sources)
}

fn parse(text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    parse_with(text, &[], &[])
}

fn good(text: &str) -> Config {
    match parse(text) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:?}");
            config
        }
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join(
        "
",
    )
}

/// The text without its mark, and the position of the mark.
fn unmark(text: &str) -> (String, Location) {
    let before = text.split(MARK).next().unwrap();
    assert_ne!(before, text, "no mark in {text}");
    let line = before.lines().count() + usize::from(before.ends_with('\n'));
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    let place = Location::File {
        file: "etc/config.toml".to_owned(),
        line: line.max(1),
        column,
    };
    (text.replace(MARK, ""), place)
}

/// Asserts that `text` gives exactly one problem at its mark, with these words in message and fix.
fn refuses(text: &str, severity: Severity, message: &str, fix: &str) {
    let (text, place) = unmark(text);
    let problems = match parse(&text) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    let [problem] = problems.as_slice() else {
        panic!("{text}\none problem was wanted, got:\n{}", lines(&problems));
    };
    assert_eq!(problem.location, place, "{text}\n{problem}");
    assert_eq!(problem.severity, severity, "{text}\n{problem}");
    assert!(
        problem.message.contains(message),
        "{text}\n{problem}\nwanted: {message}"
    );
    assert!(
        problem.fix.contains(fix),
        "{text}\n{problem}\nwanted: {fix}"
    );
}

fn errs(from: &str, to: &str, message: &str, fix: &str) {
    assert!(WHOLE.contains(from), "{from}");
    refuses(&WHOLE.replacen(from, to, 1), Severity::Error, message, fix);
}

fn warns(from: &str, to: &str, message: &str, fix: &str) {
    assert!(WHOLE.contains(from), "{from}");
    refuses(
        &WHOLE.replacen(from, to, 1),
        Severity::Warning,
        message,
        fix,
    );
}

#[test]
fn smallest_file_has_the_documented_defaults() {
    let config = good(WHOLE);
    let server = &config.server;
    assert_eq!(server.admin, "127.0.0.1:9001".parse().ok());
    assert_eq!(server.domains, ["s3.localhost"]);
    assert_eq!(server.region, "ap-guangzhou");
    assert_eq!(server.threads, 3);
    assert_eq!(server.max_presign, Duration::from_hours(168));
    assert!(server.allow_qsign);
    assert!(!server.allow_sigv2_presign);
    assert!(server.tls.is_none());
    let limits = &server.limits;
    assert_eq!(
        (limits.head_bytes, limits.head_fields, limits.xml_bytes),
        (16 << 10, 100, 2 << 20)
    );
    assert_eq!((limits.connections, limits.body_rate), (16_384, 1024));
    assert_eq!(limits.drain_timeout, Duration::from_mins(1));
    assert_eq!((limits.streams, limits.stream_window), (128, 128 << 10));
    assert_eq!(
        config.upstream.endpoint.authority,
        "{bucket}.cos.{region}.myqcloud.com"
    );
    assert_eq!(config.upstream.signature, UpstreamSignature::S3);
    assert_eq!(config.upstream.limits.idle_timeout, Duration::from_secs(50));
    assert_eq!(config.sts.endpoint.authority, "sts.tencentcloudapi.com");
    assert_eq!(config.sts.answer_bytes, 64 << 10);
    let [issuer] = config.issuers.as_slice() else {
        panic!()
    };
    assert_eq!(issuer.kind.duration(), Some(Duration::from_hours(2)));
    let IssuerKind::Federation {
        base: BaseKey::Given(key),
        ..
    } = &issuer.kind
    else {
        panic!()
    };
    assert_eq!(key.secret_id.value.expose(), "AKID-of-the-issuer");
    let [tenant] = config.tenants.as_slice() else {
        panic!()
    };
    assert_eq!((tenant.name.as_str(), tenant.issuer), ("acme", 0));
    assert_eq!(
        tenant.access_keys[0].secret.value.expose(),
        "secret-of-acme"
    );
    assert_eq!(
        tenant.grants[0].prefixes,
        [PrefixPattern::StartsWith("acme/".to_owned())]
    );
    assert_eq!(
        tenant.grants[0].actions,
        [
            "name/cos:GetObject",
            "name/cos:GetObjectTagging",
            "name/cos:HeadObject"
        ]
    );
}

#[test]
fn keeps_the_order_of_tenants_and_issuers() {
    let text = format!(
        "{WHOLE}{}",
        OTHER.replace("other]", "aaa]").replace("other.", "aaa.")
    );
    let names: Vec<_> = good(&text)
        .tenants
        .into_iter()
        .map(|tenant| tenant.name)
        .collect();
    assert_eq!(names, ["acme", "aaa"]);
}

#[test]
fn accepts_the_example_files() {
    let example = include_str!("../../config/example.toml");
    let variables = [
        ("TENCENTCLOUD_SECRET_ID", "x"),
        ("TENCENTCLOUD_SECRET_KEY", "x"),
        ("ACME_SECRET", "a-secret-of-acme"),
        ("GLOBEX_SECRET", "a-secret-of-globex"),
    ];
    let (_, warnings) = parse_with(example, &variables, &[])
        .unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert!(warnings.is_empty(), "{}", lines(&warnings));
    let development = include_str!("../../config/development.toml");
    let (_, warnings) =
        parse(development).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert!(
        warnings
            .iter()
            .all(|warning| warning.message.contains("is written in this file")),
        "{}",
        lines(&warnings)
    );
}

#[test]
fn rejects_unknown_keys() {
    errs(
        "listen =",
        "§lissten =",
        "unknown key `lissten` in [server]",
        "did you mean `listen`?",
    );
    errs(
        "[server]",
        "§colour = 1\n[server]",
        "unknown section `colour`",
        "the keys here are credentials, identities, include, issuers, log, server",
    );
    errs(
        "kind =",
        "§knd = 1\nkind =",
        "unknown key `knd` in [issuers.main]",
        "`kind`",
    );
    errs(
        "issuer =",
        "§jwt = 1\nissuer =",
        "unknown key `jwt` in [tenants.acme]",
        "access_keys",
    );
    errs(
        "name =",
        "§prefix = 1\nname =",
        "unknown key `prefix` in [tenants.acme.grants]",
        "`prefixes`",
    );
    errs(
        "{ id",
        "{ §ids = 1, id",
        "unknown key `ids` in [tenants.acme.access_keys]",
        "`id`",
    );
    errs(
        "[issuers.main]",
        "[server.limits]\n§head_byte = 1\n[issuers.main]",
        "server.limits",
        "`head_bytes`",
    );
    errs(
        "[issuers.main]",
        "[upstream.limits]\n§x = 1\n[issuers.main]",
        "upstream.limits",
        "idle_connections",
    );
    errs(
        "[issuers.main]",
        "[sts.limits]\n§timeouts = 1\n[issuers.main]",
        "sts.limits",
        "`timeout`",
    );
    errs(
        "[issuers.main]",
        "[sts]\n§endpint = 1\n[issuers.main]",
        "unknown key `endpint` in [sts]",
        "`endpoint`",
    );
}

#[test]
fn rejects_wrong_types() {
    errs(
        "\"127.0.0.1:9000\"",
        "§9000",
        "`listen` is an integer, not a string",
        "write listen = \"…\", in quotes",
    );
    errs(
        "\"federation\"",
        "§true",
        "`kind` is a boolean",
        "in quotes",
    );
    errs(
        "[server]
listen = \"127.0.0.1:9000\"",
        "server = §1",
        "`server` is an integer, not a table",
        "below a line [server]",
    );
    errs(
        "[\"read\"]",
        "§\"read\"",
        "`actions` is a string, not an array",
        "write actions = [\"read\"]",
    );
    errs(
        "[\"read\"]",
        "[§1]",
        "`actions` is an integer",
        "write actions = [\"…\"]",
    );
    errs(
        "issuer =",
        "anonymous = §\"yes\"\nissuer =",
        "`anonymous` is a string, not true or false",
        "without quotes",
    );
    errs(
        "[issuers.main]",
        "domains = [§1]\n[issuers.main]",
        "`domains` is an integer",
        "write domains = [\"…\"]",
    );
    errs(
        "[issuers.main]",
        "threads = §[]\n[issuers.main]",
        "`threads` is an array, not a number",
        "write threads = 100",
    );
}

#[test]
fn rejects_invalid_toml_without_quoting_it() {
    let text = "[server]\nsecret = \"CANARY\nlisten = 1\n";
    let Err(problems) = parse(text) else { panic!() };
    assert!(
        lines(&problems).starts_with("etc/config.toml:2:17: error: not TOML: "),
        "{}",
        lines(&problems)
    );
    assert!(!lines(&problems).contains("CANARY"));
    let Err(problems) = parse("a = 1\na = 2\n") else {
        panic!()
    };
    assert!(
        lines(&problems).starts_with(
            "etc/config.toml:2:1: error: the key `a` is written twice: first on line 1"
        ),
        "{}",
        lines(&problems)
    );
}

#[test]
fn columns_count_characters() {
    let text = "[server]\nregion = \"中文\"\n[tenants]\n\"中\" = { \"文\" = 1 }\n";
    let Err(problems) = parse(text) else { panic!() };
    let places: Vec<String> = problems.iter().map(|p| p.location.to_string()).collect();
    assert!(
        places.contains(&"etc/config.toml:4:9".to_owned()),
        "{}",
        lines(&problems)
    );
}

#[test]
fn checks_server_values() {
    errs(
        "\"127.0.0.1:9000\"",
        "§\"localhost:9000\"",
        "not an address",
        "127.0.0.1:9000",
    );
    errs(
        "\"127.0.0.1:9000\"",
        "§\":9000\"",
        "not an address",
        "127.0.0.1:9000",
    );
    let server = |line: &str| format!("{line}\n[issuers.main]");
    let errs = |line: &str, message, fix| errs("[issuers.main]", &server(line), message, fix);
    errs("admin = §\"x\"", "`admin`", "an IP address and a port");
    errs(
        "admin = §\"127.0.0.1:9000\"",
        "`admin` and `listen` are both 127.0.0.1:9000",
        "give `admin` another port",
    );
    errs(
        "domains = [\"a.b\", §\"https://x\"]",
        "not a domain",
        "s3.example.com",
    );
    errs("domains = [§\"10.0.0.1\"]", "not a domain", "DNS name");
    errs("region = §\"Guangzhou\"", "not a region", "ap-guangzhou");
    errs("threads = §0", "out of range", "1 to 1024");
    errs("max_presign = §\"8h1x\"", "not a duration", "1h30m");
    errs("max_presign = §\"0s\"", "out of range", "1s to 168h");
    errs("max_presign = §\"169h\"", "out of range", "168h");
    errs("max_presign = §60", "`60` has no unit", "\"60s\"");
    errs(
        "[server.limits]\nhead_bytes = §\"1KB\"",
        "not a size",
        "1KiB",
    );
    errs(
        "[server.limits]\nhead_bytes = §100",
        "out of range",
        "8KiB to 1MiB",
    );
    errs(
        "[server.limits]\nconnections = §-1",
        "not a whole number",
        "number",
    );
}

#[test]
fn reads_limits_of_a_tenant() {
    let limits = |lines: &str| {
        let text = WHOLE.replacen(
            "[[tenants.acme.grants]]",
            &format!("[tenants.acme.limits]\n{lines}\n[[tenants.acme.grants]]"),
            1,
        );
        good(&text).tenants.remove(0).limits
    };
    assert_eq!(good(WHOLE).tenants[0].limits, TenantLimits::default());
    assert_eq!(limits(""), TenantLimits::default());
    assert_eq!(
        limits(
            "requests_per_second = 100\nburst = 5\nconcurrent_requests = 7\nupload_rate = \"50MiB\"\ndownload_rate = 1000000\nobject_size = \"1GiB\""
        ),
        TenantLimits {
            requests_per_second: Some(100),
            burst: Some(5),
            concurrent_requests: Some(7),
            upload_rate: Some(50 << 20),
            download_rate: Some(1_000_000),
            object_size: Some(1 << 30),
        }
    );
    let errs = |line: &str, message, fix| {
        let to = format!("[tenants.acme.limits]\n{line}\n[[tenants.acme.grants]]");
        errs("[[tenants.acme.grants]]", &to, message, fix);
    };
    errs("upload_rate = §\"1KiB\"", "out of range", "64KiB");
    errs("object_size = §\"6GiB\"", "out of range", "1 to 5GiB");
    errs("requests_per_second = §0", "out of range", "1 to");
    errs(
        "concurrent_requests = §\"many\"",
        "not a whole number",
        "number",
    );
    errs(
        "burst = §5",
        "alone it limits nothing",
        "requests_per_second",
    );
    errs("§rate = 5", "unknown key `rate`", "upload_rate");
}

#[test]
fn checks_upstream_and_sts_values() {
    let errs = |line: &str, message, fix| {
        errs(
            "[issuers.main]",
            &format!("{line}\n[issuers.main]"),
            message,
            fix,
        );
    };
    errs(
        "[upstream]\nendpoint = §\"ftp://{bucket}.x\"",
        "https://",
        "https://HOST",
    );
    errs(
        "[upstream]\nendpoint = §\"https://cos.x\"",
        "where the bucket goes",
        "{bucket}",
    );
    errs(
        "[upstream]\nendpoint = §\"https://{bucket}.x?y\"",
        "query",
        "`?`",
    );
    errs(
        "[upstream]\nendpoint = §\"https://{bucket}.{zone}.x\"",
        "unknown placeholder",
        "{region}",
    );
    errs(
        "[upstream]\nservice_endpoint = §\"https://{bucket}.x\"",
        "unknown placeholder",
        "{region}",
    );
    errs(
        "[upstream]\nsignature = §\"v2\"",
        "`v2` is not allowed here",
        "\"cos\"",
    );
    errs(
        "[upstream]\nconnect_to = §\"10.0.0.1\"",
        "not host:port",
        "127.0.0.1:9100",
    );
    errs(
        "[upstream]\nca_file = §\"ca.pem\"",
        "cannot read etc/ca.pem",
        "relative to the configuration file's directory",
    );
    errs(
        "[upstream.limits]\nhead_timeout = §\"2h\"",
        "out of range",
        "1ms to 1h",
    );
    errs(
        "[sts]\nendpoint = §\"https://sts.{region}.x\"",
        "placeholder",
        "without placeholders",
    );
    errs(
        "[sts.limits]\nanswer_bytes = §\"2GiB\"",
        "out of range",
        "1KiB to 1MiB",
    );
}

#[test]
fn checks_log_and_trace_values() {
    let errs = |line: &str, message: &str, fix: &str| {
        errs(
            "[issuers.main]",
            &format!("{line}\n[issuers.main]"),
            message,
            fix,
        );
    };
    errs(
        "[log]\naccess = §\"xml\"",
        "`xml` is not allowed here",
        "\"combined\"",
    );
    errs(
        "[log]\naccess_share = §\"5\"",
        "`5` is not a percentage",
        "\"2.5%\"",
    );
    errs("[log]\naccess_slow = §\"0s\"", "out of range", "1ms to 1h");
    errs(
        "[traces]\nshare = §\"101%\"",
        "`101%` is not a percentage",
        "\"100%\"",
    );
    let collector = "endpoint = §\"http://127.0.0.1:4318/v1/traces\"";
    let (message, fix) = if cfg!(feature = "otel") {
        ("no effect without `enabled`", "enabled = true")
    } else {
        ("this cosgate cannot send traces", "--features otel")
    };
    errs(&format!("[traces]\n{collector}"), message, fix);
}

#[test]
fn warns_about_remote_plain_http() {
    let at = |line: &str| WHOLE.replace("[issuers.main]", &format!("{line}\n[issuers.main]"));
    let text = at("[upstream]\nendpoint = §\"http://{bucket}.cos.internal\"");
    refuses(&text, Severity::Warning, "uses http://", "https://");
    good(&at(
        "[upstream]\nendpoint = \"http://127.0.0.1:1/{bucket}\"",
    ));
    good(&at(
        "[sts]\nendpoint = \"http://sts.internal\"\nconnect_to = \"127.0.0.1:1\"",
    ));
}

#[test]
fn checks_issuers() {
    errs(
        "\"federation\"",
        "§\"federated\"",
        "`federated` is not allowed here",
        "\"federation\"",
    );
    errs(
        "kind =",
        "duration = §\"37h\"\nkind =",
        "out of range",
        "1s to 36h",
    );
    errs(
        "kind =",
        "token = §\"env:KEY\"\nkind =",
        "`token` makes the issuer's key a temporary one, and STS takes only permanent ones",
        "kind = \"assume-role\"",
    );
    errs(
        "\"federation\"",
        "\"static\"\n§duration = \"1h\"",
        "an issuer of kind \"static\" has no key `duration`",
        "kind = \"federation\"",
    );
    warns("kind =", "duration = §\"3h\"\nkind =", "root account", "2h");
    errs(
        "[issuers.main]\nkind = \"federation\"",
        "§[issuers.main]",
        "`kind` is missing from [issuers.main]",
        "kind =",
    );
    let unused = WHOLE.replace("[tenants.acme]", "[issuers.§spare]\nkind = \"static\"\nsecret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n[tenants.acme]");
    refuses(
        &unused,
        Severity::Warning,
        "no tenant or template uses the issuer `spare`",
        "remove it",
    );
    errs(
        "issuer = \"main\"",
        "issuer = §\"mian\"",
        "no issuer `mian`",
        "did you mean \"main\"?",
    );
    let same = WHOLE.replace("[tenants.acme]", "[issuers.MAIN]\nkind = \"static\"\nsecret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n[tenants.acme]");
    let Err(problems) = parse(&same) else {
        panic!()
    };
    assert!(
        lines(&problems).contains("have the same environment variables (COSGATE_ISSUERS_MAIN_"),
        "{}",
        lines(&problems)
    );
}

/// The problems of an issuer that replaces the one of `WHOLE`.
fn issuer_errs(lines: &str, message: &str, fix: &str) {
    let issuer = format!("{lines}\n[tenants.acme]");
    let text = WHOLE.replace("kind = \"federation\"\n", "");
    let text = text.replace("secret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n", "");
    refuses(
        &text.replace("[tenants.acme]", &issuer),
        Severity::Error,
        message,
        fix,
    );
}

const ROLE: &str =
    "kind = \"assume-role\"\nrole_arn = \"qcs::cam::uin/100000000001:roleName/cosgate\"\n";

#[test]
fn federation_issuer_needs_a_permanent_key() {
    let only = "STS takes only permanent ones for GetFederationToken (1312/48195)";
    let federation = "kind = \"federation\"\n";
    issuer_errs(
        &format!("{federation}cvm_role = §\"cosgate\""),
        only,
        "kind = \"assume-role\"",
    );
    issuer_errs(
        &format!("{federation}base = §\"role\"\n[issuers.role]\n{ROLE}cvm_role = \"cosgate\""),
        only,
        "permanent key",
    );
    let text = WHOLE.replace(
        "secret_id = \"env:ID\"\nsecret_key = \"env:KEY\"",
        "profile = \"ci\"",
    );
    let home = [("HOME", "/home/me")];
    let path = "/home/me/.tencentcloud/credentials";
    let permanent = "[ci]\nsecret_id = AKID\nsecret_key = KEY\n";
    assert!(parse_with(&text, &home, &[(path, permanent)]).is_ok());
    let temporary = format!("{permanent}token = TOKEN\n");
    let Err(problems) = parse_with(&text, &home, &[(path, &temporary)]) else {
        panic!()
    };
    assert!(lines(&problems).contains(only), "{}", lines(&problems));
    let Err(problems) = parse_with(&text, &home, &[]) else {
        panic!()
    };
    let shown = lines(&problems);
    assert!(
        shown.contains(path) && shown.contains("/etc/tencentcloud/credentials"),
        "{shown}"
    );
}

#[test]
fn checks_roles() {
    let key = "secret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n";
    for (lines, message, fix) in [
        (
            "kind = \"assume-role\"\nrole_arn = §\"arn:aws:iam::1:role/x\"".to_owned(),
            "not the ARN of a role",
            "roleName/NAME",
        ),
        (
            format!("{ROLE}duration = §\"13h\""),
            "out of range",
            "1s to 12h",
        ),
        (
            format!("{ROLE}session_name = §\"a b\""),
            "not a session name",
            "letters",
        ),
        (
            format!("{ROLE}session_name = §\"a\""),
            "not a session name",
            "2 to 128",
        ),
        (
            format!("{ROLE}external_id = §\"a b\""),
            "not an external id",
            "2 to 128",
        ),
        (
            format!(
                "{ROLE}tags = [{{ key = \"a\", value = \"b\" }}, {{ key = §\"a\", value = \"c\" }}]"
            ),
            "two tags have the key `a`",
            "remove",
        ),
        (
            format!("{ROLE}profile = \"default\"\ncvm_role = \"x\""),
            "an issuer has one key of its own",
            "remove one",
        ),
    ] {
        let wanted = lines.replace(MARK, "");
        let Err(problems) =
            parse(&WHOLE.replace("kind = \"federation\"\n", &format!("{wanted}\n")))
        else {
            panic!("{lines}")
        };
        let shown = self::lines(&problems);
        assert!(
            shown.contains(message) && shown.contains(fix),
            "{lines}: {shown}"
        );
    }
    let text = WHOLE.replace("kind = \"federation\"\n", ROLE);
    let config = good(&text);
    assert!(matches!(
        &config.issuers[0].kind,
        IssuerKind::AssumeRole { base: BaseKey::Given(_), role } if role.session_name == "{tenant}"
    ));
    issuer_errs(
        &format!("{ROLE}command = §[\"mint\"]"),
        "absolute path of a program",
        "No shell",
    );
    for name in ["", "A=B", "1A", "A-B", "${A}"] {
        issuer_errs(
            &format!("{ROLE}command = [\"/mint\"]\ncommand_env = [\"PROXY\", §\"{name}\"]"),
            "not the name of an environment variable",
            "HTTPS_PROXY",
        );
    }
    issuer_errs(
        &format!("{ROLE}cvm_role = \"x\"\nmetadata_endpoint = §\"https://metadata\""),
        "plain HTTP",
        "http://",
    );
    issuer_errs(
        &format!("{ROLE}base = §\"mian\""),
        "no issuer `mian`",
        "did you mean \"main\"?",
    );
    issuer_errs(
        &format!("{ROLE}base = §\"main\""),
        "each other's base",
        "a key of its own",
    );
    issuer_errs(
        &format!("{ROLE}base = §\"two\"\n[issuers.two]\nkind = \"federation\"\n{key}"),
        "cannot assume a role",
        "web-identity",
    );
}

#[test]
fn web_identity_reads_variables_of_tke() {
    let issuer = "[issuers.tke]\nkind = \"web-identity\"\n";
    let role = format!("{ROLE}base = \"tke\"\n{issuer}");
    let text = WHOLE.replace(
        "kind = \"federation\"\nsecret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n",
        &role,
    );
    let variables = [
        ("TKE_PROVIDER_ID", "OIDC"),
        ("TKE_ROLE_ARN", "qcs::cam::uin/1:roleName/pod"),
        ("TKE_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
    ];
    let files = [("/var/run/token", "a.b.c")];
    let Ok((config, warnings)) = parse_with(&text, &variables, &files) else {
        panic!()
    };
    assert!(warnings.is_empty(), "{}", lines(&warnings));
    let IssuerKind::WebIdentity(web) = &config.issuers[1].kind else {
        panic!()
    };
    assert_eq!(
        (web.provider_id.as_str(), web.token_file.as_path()),
        ("OIDC", Path::new("/var/run/token"))
    );
    assert!(matches!(
        config.issuers[0].kind,
        IssuerKind::AssumeRole {
            base: BaseKey::Issuer(1),
            ..
        }
    ));
    let Ok((_, warnings)) = parse_with(&text, &variables, &[]) else {
        panic!()
    };
    assert!(lines(&warnings).contains("cannot read /var/run/token"));
    let Err(problems) = parse(&text) else {
        panic!()
    };
    assert!(lines(&problems).contains("TKE_WEB_IDENTITY_TOKEN_FILE or TKE_IDENTITY_TOKEN_FILE"));
    let direct = text.replace("issuer = \"main\"", "issuer = \"tke\"");
    let Ok((_, warnings)) = parse_with(&direct, &variables, &files) else {
        panic!()
    };
    assert!(
        lines(&warnings).contains("takes no policy"),
        "{}",
        lines(&warnings)
    );
}

#[test]
fn static_issuer_has_an_optional_token() {
    let text = WHOLE.replace("\"federation\"", "\"static\"");
    let config = good(&text);
    assert!(matches!(&config.issuers[0].kind, IssuerKind::Static(key) if key.token.is_none()));
    let config = good(&text.replace("kind =", "token = \"env:KEY\"\nkind ="));
    assert!(
        matches!(&config.issuers[0].kind, IssuerKind::Static(GivenKey { token: Some(token), .. }) if token.value.expose() == "key-of-the-issuer")
    );
}

#[test]
fn rejects_missing_secrets() {
    errs(
        "\"env:KEY\"",
        "§\"env:NOT_SET\"",
        "the environment variable NOT_SET is not set",
        "set NOT_SET",
    );
    errs(
        "\"env:KEY\"",
        "§\"env:\"",
        "not the name of a variable",
        "env:NAME",
    );
    errs(
        "\"env:KEY\"",
        "§\"file:key.txt\"",
        "cannot read etc/key.txt",
        "relative",
    );
    errs("\"env:KEY\"", "§\"\"", "the secret is empty", "value");
    warns(
        "\"env:KEY\"",
        "§\"a-literal\"",
        "is written in this file",
        "COSGATE_ISSUERS_MAIN_SECRET_KEY",
    );
    let text = WHOLE
        .replace(
            "secret_key = \"env:KEY\"
",
            "",
        )
        .replace("[issuers.main]", "§[issuers.main]");
    refuses(
        &text,
        Severity::Error,
        "`secret_key` is missing",
        "COSGATE_ISSUERS_MAIN_SECRET_KEY",
    );
}

#[test]
fn trims_white_space_around_secrets() {
    let in_file = WHOLE.replace("env:KEY", "file:/run/key");
    for content in [
        "the-key",
        "the-key\n",
        "the-key\r\n",
        "the-key\n\n",
        " \tthe-key \n",
        "\nthe-key",
    ] {
        let (config, _) = parse_with(&in_file, &[], &[("/run/key", content)]).unwrap();
        let IssuerKind::Federation {
            base: BaseKey::Given(key),
            ..
        } = &config.issuers[0].kind
        else {
            panic!()
        };
        assert_eq!(key.secret_key.value.expose(), "the-key");
        assert!(key.secret_key.file().is_some());
        let (config, _) = parse_with(WHOLE, &[("KEY", content)], &[]).unwrap();
        let IssuerKind::Federation {
            base: BaseKey::Given(key),
            ..
        } = &config.issuers[0].kind
        else {
            panic!()
        };
        assert_eq!(key.secret_key.value.expose(), "the-key");
    }
    for content in ["", "\n", " \n ", "the key", "the\nkey\n", "the-key\0"] {
        assert!(
            parse_with(&in_file, &[], &[("/run/key", content)]).is_err(),
            "{content:?}"
        );
        assert!(
            parse_with(WHOLE, &[("KEY", content)], &[]).is_err(),
            "{content:?}"
        );
    }
}

#[test]
fn checks_grants() {
    errs(
        "\"photos\"",
        "§\"Photos\"",
        "not an S3 bucket name",
        "lower-case",
    );
    errs(
        "\"shared-1250000000\"",
        "§\"shared\"",
        "a bucket without APPID",
        "photos-1250000000",
    );
    errs(
        "\"shared-1250000000\"",
        "§\"shared-prod\"",
        "a bucket without APPID",
        "<name>-<appid>",
    );
    errs(
        "\"shared-1250000000\"",
        "§\"Shared-1\"",
        "not a COS bucket",
        "lower-case",
    );
    errs(
        "region = \"ap-guangzhou\"",
        "region = §\"ap_guangzhou\"",
        "not a region",
        "ap-guangzhou",
    );
    errs(
        "[\"read\"]",
        "[\"read\", §\"GetObjekt\"]",
        "`GetObjekt` is not a COS action",
        "did you mean \"GetObject\"?",
    );
    errs("[\"read\"]", "§[]", "`actions` is empty", "\"read\"");
    for (line, key) in [
        (
            "prefixes = [\"acme/*\"]
",
            "prefixes",
        ),
        (
            "actions = [\"read\"]
",
            "actions",
        ),
    ] {
        let text = WHOLE.replace(line, "").replace("[[tenants", "§[[tenants");
        refuses(
            &text,
            Severity::Error,
            &format!("`{key}` is missing"),
            &format!("write {key} ="),
        );
    }
}

#[test]
fn checks_prefixes() {
    for (written, message) in [
        ("", "empty"),
        ("/acme/*", "begins with a slash"),
        ("a*b", "not at its end"),
        ("a?", "CAM policy"),
        ("${x}/*", "CAM policy"),
        ("a'b", "quote"),
        ("a\\u0000b", "control character"),
        ("a/../b", "segment"),
    ] {
        errs(
            "\"acme/*\"",
            &format!("\"ok/*\", §\"{written}\""),
            message,
            "",
        );
    }
    warns(
        "\"acme/*\"",
        "§\"acme*\"",
        "also covers `acmeb/…`",
        "\"acme/*\"",
    );
    warns(
        "\"acme/*\"",
        "§\"acme/\"",
        "covers one key",
        "did you mean \"acme/*\"?",
    );
}

#[test]
fn root_must_be_a_folder() {
    let text = WHOLE.replace("prefixes = [\"acme/*\"]", "root = \"acme/\"");
    let (config, problems) = parse_with(&text, &[], &[]).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let grant = &config.tenants[0].grants[0];
    assert_eq!(grant.root, "acme/");
    assert_eq!(grant.prefixes, [PrefixPattern::Any]);
    assert!(!grant.attachment);

    for (root, message) in [
        ("", "a root is a folder"),
        ("acme", "does not end in `/`"),
        ("/acme/", "begins with a slash"),
        ("acme/*", "`*`"),
        ("acme/../", "segment"),
        ("a?/", "CAM policy"),
    ] {
        errs(
            "name =",
            &format!("root = §\"{root}\"\nname ="),
            message,
            "",
        );
    }
    errs(
        "prefixes = [",
        "root = \"r/\"\nprefixes = [§\"/x\", ",
        "begins with a slash",
        "",
    );
    warns(
        "prefixes = [",
        "root = \"acme/\"\nprefixes = [§",
        "it is `acme/acme/*` in the bucket",
        "without the root",
    );
    let long = "x".repeat(850);
    errs(
        "prefixes = [",
        &format!("root = \"r/\"\nprefixes = [§\"{long}\", "),
        "below this grant's `root`",
        "850",
    );
    errs(
        "prefixes = [\"acme/*\"]",
        "root = \"acme/\"\nprefixes = §[]",
        "`prefixes` is empty",
        "",
    );
}

#[test]
fn rejects_overlapping_roots() {
    let second = |grant: &str| {
        format!(
            "{WHOLE}\n[tenants.other]\nissuer = \"main\"\naccess_keys = [{{ id = \"OTHERKEY000000000001\", secret = \"env:ACME\" }}]\n\
             [[tenants.other.grants]]\nname = \"photos\"\nbucket = \"shared-1250000000\"\nregion = \"ap-guangzhou\"\n\
             actions = [\"read\"]\n{grant}\n"
        )
    };
    for grant in [
        "root = \"other/\"",
        "root = \"other/\"\nprefixes = [\"acme/*\"]",
        "root = \"acm/\"\nprefixes = [\"e/*\"]",
    ] {
        let parsed = parse_with(&second(grant), &[], &[]);
        assert!(parsed.is_ok(), "{grant}: {parsed:?}");
    }
    for (grant, real) in [
        ("root = §\"acme/\"", "`acme/*`"),
        ("root = §\"acme/x/\"", "`acme/x/*`"),
        ("root = \"acme/\"\nprefixes = [§\"x\"]", "`acme/x`"),
    ] {
        refuses(&second(grant), Severity::Error, real, "its own prefix");
    }
}

#[test]
fn default_list_prefix_has_no_effect() {
    for value in ["true", "false"] {
        for prefixes in ["[\"acme/*\"]", "[\"acme/*\", \"acme.txt\"]"] {
            let written = format!("list_default_prefix = §{value}\nprefixes = {prefixes}");
            let text = WHOLE.replace("prefixes = [\"acme/*\"]", &written);
            refuses(&text, Severity::Warning, "no effect any more", "remove it");
        }
    }
}

#[test]
fn warns_about_bucket_actions_on_a_prefix() {
    let written = |reach: &str, actions: &str| {
        let text = WHOLE.replace("prefixes = [\"acme/*\"]", reach);
        text.replace(
            "actions = [\"read\"]",
            &format!("actions = [\"read\", {actions}]"),
        )
    };
    for reach in [
        "prefixes = [\"acme/*\"]",
        "root = \"acme/\"",
        "root = \"acme/\"\nprefixes = [\"*\"]",
    ] {
        for action in [
            "PutBucketLifecycle",
            "cos:GetBucketACL",
            "name/cos:DeleteBucketCORS",
        ] {
            let text = written(reach, &format!("§\"{action}\""));
            refuses(&text, Severity::Warning, "has no effect", "without a root");
        }
        let of_objects = written(reach, "\"GetObjectACL\"");
        assert_eq!(parse(&of_objects).unwrap().1, []);
    }
    let whole = written("prefixes = [\"*\"]", "\"PutBucketLifecycle\"");
    assert_eq!(parse(&whole).unwrap().1, []);
}

#[test]
fn vending_needs_safe_settings() {
    let token = "vend_tokens = [\"file:t\"]\n";
    let with =
        |more: &str| WHOLE.replace("issuer = \"main\"\n", &format!("issuer = \"main\"\n{more}"));
    let files = &[
        ("etc/t", "a-token-of-some-length\n"),
        ("etc/short", "short\n"),
    ];
    let read = |text: &str| parse_with(text, &[], files);
    let (config, warnings) = read(&with(&format!("vend = true\n{token}"))).unwrap();
    let vend = config.tenants[0].vend.as_ref().unwrap();
    assert_eq!(
        (vend.tokens.len(), vend.duration),
        (1, Duration::from_hours(1))
    );
    assert_eq!(warnings, []);
    assert!(read(WHOLE).unwrap().0.tenants[0].vend.is_none());

    let fixed = with("vend = true\n").replace("federation", "static");
    let two = with(&format!("vend = true\n{token}"))
        + &OTHER.replace(
            "issuer = \"main\"\n",
            &format!("issuer = \"main\"\nvend = true\n{token}"),
        );
    for (text, shown) in [
        (with(token), "`vend` is not true"),
        (with("vend_duration = \"1h\"\n"), "`vend` is not true"),
        (with("vend = true\nvend_duration = \"20m\"\n"), "30m"),
        (
            with("vend = true\nvend_tokens = [\"file:short\"]\n"),
            "shorter than 16",
        ),
        (
            with("vend = true\nanonymous = true\n"),
            "anyone could get a key",
        ),
        (fixed, "static issuer"),
        (
            of_web_identity(&with("vend = true\n")),
            "which no policy narrows",
        ),
        (two, "the same"),
    ] {
        let problems = read(&text).expect_err(shown);
        let reported: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(reported.join("\n").contains(shown), "{shown}: {reported:?}");
    }
}

/// The same with an issuer whose keys accept no policy.
fn of_web_identity(text: &str) -> String {
    text.replace(
        "kind = \"federation\"\nsecret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n",
        "kind = \"web-identity\"\nprovider_id = \"OIDC\"\nrole_arn = \"qcs::cam::uin/1:roleName/pod\"\ntoken_file = \"t\"\n",
    )
}

/// A grant with the policy in `p.json`.
fn with_policy(more: &str) -> String {
    WHOLE.replace(
        "prefixes = [\"acme/*\"]\nactions = [\"read\"]\n",
        &format!("policy = §\"file:p.json\"\n{more}"),
    )
}

fn policy_of(statement: &str) -> String {
    format!("{{\"version\": \"2.0\", \"statement\": [{statement}]}}")
}

#[test]
fn accepts_a_policy_as_grant() {
    let base = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000";
    let policy = policy_of(&format!(
        r#"{{"effect": "allow", "action": ["name/cos:PutObject", "cos:GetObject"],
            "resource": "{base}/acme/*", "condition": {{"ip_equal": {{"qcs:ip": "10.0.0.0/8"}}}}}},
           {{"effect": "deny", "action": "name/cos:GetObject", "resource": ["{base}/acme/secret/*"]}}"#
    ));
    let text = with_policy("");
    let (config, warnings) =
        parse_with(&text.replace('§', ""), &[], &[("etc/p.json", &policy)]).unwrap();

    let grant = &config.tenants[0].grants[0];
    let acme = PrefixPattern::StartsWith("acme/".into());
    assert_eq!(grant.prefixes, [acme]);
    assert_eq!(grant.actions, ["name/cos:GetObject", "name/cos:PutObject"]);
    let policy = grant.policy.as_ref().unwrap();
    assert!(policy.allows("name/cos:GetObject", "acme/x"));
    assert!(!policy.allows("name/cos:GetObject", "acme/secret/x"));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(
        warning.message.contains("cosgate's own address"),
        "{warning}"
    );
}

#[test]
fn policy_beyond_its_bucket_excludes_vending() {
    let base = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000";
    let here = format!("{base}/acme/*");
    let (whole, other) = (
        format!("{base}/*"),
        here.replace("shared-1250000000", "shared*"),
    );
    let of_any_region = here.replace("ap-guangzhou", "*");
    let account = "qcs::cos:ap-guangzhou:uid/1250000000:*";
    let wide = [
        ("*", here.as_str()),
        ("name/cos:*", &here),
        ("cos:*", &here),
        ("name/cos:GetObject", "*"),
        ("name/cos:GetObject", account),
        ("name/cos:GetObject", &of_any_region),
        ("name/cos:GetObject", &other),
    ];
    let narrow = [
        ("name/cos:GetObject", here.as_str()),
        ("name/cos:Get*", &here),
        ("name/cos:GetObject", &whole),
    ];
    let read = |vend: &str, action: &str, resource: &str| {
        let text = with_policy("").replace('§', "");
        let text = text.replace("[tenants.acme]\n", &format!("[tenants.acme]\n{vend}"));
        let allowed = format!(
            r#"{{"effect": "allow", "action": "name/cos:GetObject", "resource": "{here}"}}"#
        );
        let more =
            format!(r#"{{"effect": "allow", "action": "{action}", "resource": "{resource}"}}"#);
        let policy = policy_of(&format!("{allowed}, {more}"));
        parse_with(&text, &[], &[("etc/p.json", &policy)])
    };
    for (action, resource) in wide {
        let without = read("", action, resource);
        let problems = match (without, read("vend = true\n", action, resource)) {
            (Ok(_), Err(problems)) => problems,
            // Refused with and without vending.
            (Err(_), Err(_)) => continue,
            (_, Ok(_)) => panic!("{action} {resource} is taken"),
        };
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let shown = shown.join("\n");
        assert!(
            shown.contains("`vend` would hand out keys that reach beyond"),
            "{shown}"
        );
    }
    assert!(
        read("", "name/cos:GetObject", "*").is_ok(),
        "the proxy's own key may be wide"
    );
    for (action, resource) in narrow {
        let read = read("vend = true\n", action, resource);
        assert!(read.is_ok(), "{action} {resource}: {read:?}");
    }
}

#[test]
fn reports_policy_problems_at_the_key() {
    let base = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000";
    let allow = |resource: &str| {
        policy_of(&format!(
            r#"{{"effect": "allow", "action": "name/cos:GetObject", "resource": "{resource}"}}"#
        ))
    };
    let good = allow(&format!("{base}/acme/*"));
    let found = |text: &str, policy: &str| {
        let at = text.find('§').unwrap();
        let line = text[..at].lines().count();
        let read = parse_with(&text.replace('§', ""), &[], &[("etc/p.json", policy)]);
        let problems = read.map_or_else(|errors| errors, |(_, warnings)| warnings);
        let here = problems.into_iter().find(
            |problem| matches!(&problem.location, Location::File { line: found, .. } if *found == line),
        );
        here.map(|problem| format!("{:?}: {problem}", problem.severity))
            .unwrap_or_default()
    };
    for (policy, shown) in [
        ("{}".to_owned(), "version"),
        (good.replace("2.0", "3.0"), "version"),
        (good.replace("shared-", "other-"), "another bucket"),
        (good.replace("ap-guangzhou", "ap-beijing"), "another region"),
        (good.replace("1250000000", "1250000001"), "another account"),
        (good.replace("GetObject", "GetObjekt"), "GetObject"),
        (good.replace("/*", "/*/x"), "one by one"),
    ] {
        let reported = found(&with_policy(""), &policy);
        assert!(
            reported.starts_with("Error") && reported.contains(shown),
            "{reported}"
        );
    }
    for policy in [
        allow("*"),
        allow(&format!("{base}/*")),
        good.replace("GetObject", "*"),
    ] {
        let shown = found(&with_policy(""), &policy);
        assert!(
            shown.starts_with("Warning: ") && shown.contains("statement 1"),
            "{shown}"
        );
    }
    let long: Vec<_> = (0..40).map(|n| format!("\"{base}/acme/{n}/*\"")).collect();
    let long = good.replace(
        &format!("\"{base}/acme/*\""),
        &format!("[{}]", long.join(",")),
    );
    assert!(found(&with_policy(""), &long).contains("bytes"));
    for more in [
        "prefixes = §[\"a/*\"]",
        "actions = §[\"read\"]",
        "root = §\"a/\"",
    ] {
        let text = with_policy(more).replacen('§', "", 1);
        assert!(found(&text, &good).contains("exclude each other"), "{more}");
    }
    assert!(found(&with_policy("").replace("file:", ""), &good).contains("file:PATH"));
    let fixed = with_policy("").replace("federation", "static");
    assert!(found(&fixed, &good).contains("issuer is static"));
    let web = of_web_identity(&with_policy(""));
    assert!(found(&web, &good).contains("those of a web identity take none"));
}

#[test]
fn tenant_needs_grants_and_callers() {
    errs(
        "[tenants.acme]\nissuer = \"main\"\naccess_keys = [{ id = \"ACMEKEY0000000000001\", secret = \"env:ACME\" }]",
        "§[tenants.acme]\nissuer = \"main\"",
        "nobody can call as the tenant `acme`",
        "access_keys",
    );
    let without = WHOLE
        .split("[[tenants")
        .next()
        .unwrap()
        .replace("[tenants.acme]", "§[tenants.acme]");
    refuses(
        &without,
        Severity::Error,
        "no grants",
        "[[tenants.acme.grants]]",
    );
    errs(
        "\"ACMEKEY0000000000001\"",
        "§\"a/b\"",
        "not an access key id",
        "keygen",
    );
    refuses(
        "§[server]\n",
        Severity::Warning,
        "there are no tenants",
        "[tenants.NAME]",
    );
}

#[test]
fn grants_need_unique_names_and_one_account() {
    let second = |name: &str, bucket: &str| {
        let grant = format!(
            "[[tenants.acme.grants]]\nname = {name}\nbucket = {bucket}\nregion = \"ap-guangzhou\"\nprefixes = [\"*\"]\nactions = [\"read\"]\n"
        );
        format!("{WHOLE}{grant}")
    };
    good(&second("\"b-b\"", "\"b-1250000000\""));
    refuses(
        &second("§\"photos\"", "\"b-1250000000\""),
        Severity::Error,
        "two grants named `photos`",
        "its own name",
    );
    refuses(
        &second("\"b-b\"", "§\"b-1\""),
        Severity::Error,
        "another account",
        "two tenants",
    );
}

#[test]
fn rejects_overlapping_tenants() {
    let with = |prefix: &str| format!("{WHOLE}{}", OTHER.replace("\"other/*\"", prefix));
    good(&with("\"acme-2/*\""));
    for prefix in ["§\"*\"", "§\"acme/*\"", "§\"acme/x/*\"", "§\"acme/x.jpg\""] {
        refuses(
            &with(prefix),
            Severity::Error,
            "cover the same keys of shared-1250000000",
            "shared = true",
        );
    }
    good(&with("\"*\"").replace("name = \"photos\"", "name = \"photos\"\nshared = true"));
    let one_declares = with("§\"*\"").replace(
        "[[tenants.other.grants]]",
        "[[tenants.other.grants]]\nshared = true",
    );
    refuses(
        &one_declares,
        Severity::Error,
        "`*` of the tenant `other` and `acme/*` of the tenant `acme`",
        "both grants",
    );
    good(&with("\"*\"").replace(
        "[[tenants.other.grants]]\nname = \"photos\"\nbucket = \"shared",
        "[[tenants.other.grants]]\nname = \"photos\"\nbucket = \"elsewhere",
    ));
}

/// An identity provider, and a template with a folder for each subject.
const TEMPLATE: &str = r#"
[identities.corp]
issuer = "https://login.example.com/"
audience = "cosgate"
jwks = "https://login.example.com/.well-known/jwks.json"
[templates.web]
issuer = "main"
identity = "corp"
[[templates.web.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["users/{claim.sub}/*"]
actions = ["read"]
"#;

fn template(from: &str, to: &str) -> String {
    assert!(TEMPLATE.contains(from), "{from}");
    format!("{WHOLE}{}", TEMPLATE.replacen(from, to, 1))
}

#[test]
fn template_makes_tenants_of_subjects() {
    let config = good(&template("", ""));
    assert_eq!(
        config.identities[0].jwks,
        Jwks::Url {
            endpoint: EndpointTemplate {
                tls: true,
                authority: "login.example.com".into(),
                path: "/.well-known/jwks.json".into(),
            },
            connect_to: None,
            ca_file: None,
            refresh: Duration::from_mins(5),
        }
    );
    assert_eq!(
        (config.templates[0].identity, config.credential_entries),
        (0, 10_000)
    );
    for prefixes in [
        r#"["{claim.sub}/*"]"#,
        r#"["users/{claim.sub}"]"#,
        r#"["{claim.org}/{claim.sub}/*", "{claim.org}/common/*"]"#,
        r#"["users/{claim.https://x.example/id}/a/*"]"#,
    ] {
        let one = template(r#"["users/{claim.sub}/*"]"#, prefixes).replace("acme/*", "elsewhere");
        let one = one.replacen("bucket = \"shared", "bucket = \"apart", 1);
        good(&one);
    }
    let shared = template("[\"users/", "[\"common/*\", \"users/").replace(
        "[[templates.web.grants]]",
        "[[templates.web.grants]]\nshared = true",
    );
    good(&shared);
    let alone = WHOLE.split("[tenants.acme]").next().unwrap();
    good(&format!("{alone}{TEMPLATE}"));
}

#[test]
fn template_rejects_certificates() {
    let with = |more: &str| {
        let more = format!("{more}\n[[templates.web.grants]]");
        template("[[templates.web.grants]]", &more)
    };
    let config = good(&with(
        "allowed_ips = [\"10.0.0.0/8\"]\n[templates.web.limits]\nrequests_per_second = 5\nobject_size = \"1MiB\"",
    ));
    let web = &config.templates[0];
    assert_eq!(web.allowed_ips.len(), 1);
    assert_eq!(
        (web.limits.requests_per_second, web.limits.object_size),
        (Some(5), Some(1 << 20))
    );
    for (bad, what, fix) in [
        (
            "allowed_ips = [§\"10.0.0.1/8\"]",
            "not a network",
            "10.0.0.0/8",
        ),
        (
            "§client_certs = [\"san:dns:a\"]",
            "client_certs",
            "[tenants.NAME]",
        ),
        (
            "[templates.web.limits]\nburst = §5",
            "limits nothing",
            "requests_per_second",
        ),
    ] {
        refuses(&with(bad), Severity::Error, what, fix);
    }
}

#[test]
fn revokes_sessions_by_time() {
    let with = |more: &str| {
        let more = format!("{more}\n[[templates.web.grants]]");
        template("[[templates.web.grants]]", &more)
    };
    let config = good(&with(
        "sessions_not_before = \"2026-01-31T12:00:00Z\"\nrevoked_sessions = [{ subject = \"alice\", before = \"2026-01-31T12:00:01Z\" }]",
    ));
    let revoked = &config.templates[0].revoked;
    assert_eq!(revoked.before.unwrap().iso8601(), "2026-01-31T12:00:00Z");
    assert_eq!(revoked.subjects[0].0, "alice");
    for (bad, what, fix) in [
        ("sessions_not_before = §\"today\"", "not a time", "in UTC"),
        (
            "revoked_sessions = [{ subject = §\"\", before = \"2026-01-31T12:00:00Z\" }]",
            "1 to 255 bytes",
            "sub",
        ),
    ] {
        refuses(&with(bad), Severity::Error, what, fix);
    }
}

#[test]
fn rejects_templates_with_overlapping_subjects() {
    let prefix = r#"["users/{claim.sub}/*"]"#;
    for (bad, what, fix) in [
        (r#"[§"users/{claim.sub}*"]"#, "begins so", "end the folder"),
        (
            r#"[§"users/x-{claim.sub}/*"]"#,
            "whole segment",
            "alone between slashes",
        ),
        (
            r#"[§"u/{claim.a}{claim.b}/*"]"#,
            "whole segment",
            "alone between slashes",
        ),
        (
            r#"[§"u/{claim.a}-{claim.b}/*"]"#,
            "whole segment",
            "alone between slashes",
        ),
        (
            r#"[§"users/{claim.sub/*"]"#,
            "whole segment",
            "alone between slashes",
        ),
        (
            r#"[§"users/{claim.}/*"]"#,
            "whole segment",
            "alone between slashes",
        ),
        (r#"[§"users/*"]"#, "no claim", "shared = true"),
    ] {
        refuses(&template(prefix, bad), Severity::Error, what, fix);
    }
    // Two claims in one segment: alice of bob's organisation would use bob's folder.
    let two = template(prefix, r#"["users/{claim.sub}/*", §"users/{claim.org}/*"]"#);
    refuses(&two, Severity::Error, "cover the same keys", "own prefix");
    // acme's folder would belong to a subject named acme.
    let both = WHOLE.replace("acme/*", "users/acme/*");
    let both = format!("{both}{}", TEMPLATE.replace("[\"users/", "[§\"users/"));
    refuses(
        &both,
        Severity::Error,
        "`users/{claim.sub}/*` of the template `web` and `users/acme/*` of the tenant `acme`",
        "own prefix",
    );
    let any = template(prefix, r#"[§"{claim.sub}/*"]"#);
    refuses(&any, Severity::Error, "cover the same keys", "own prefix");
    let tenant = WHOLE.replace("[\"acme/*\"]", "[§\"{claim.sub}/*\"]");
    refuses(
        &tenant,
        Severity::Error,
        "a tenant has no token",
        "[templates.NAME]",
    );
}

#[test]
fn rejects_template_roots_with_overlapping_subjects() {
    let prefix = r#"prefixes = ["users/{claim.sub}/*"]"#;
    for keys in [
        "root = \"users/{claim.sub}/\"",
        "root = \"users/{claim.sub}/\"\nprefixes = [\"a/*\", \"one\"]",
        "root = \"users/{claim.sub}/\"\nprefixes = [\"a/*\"]",
        "root = \"users/\"\nprefixes = [\"{claim.sub}/*\"]",
    ] {
        let config = good(&template(prefix, keys));
        assert_eq!(config.templates[0].grants.len(), 1, "{keys}");
    }
    for (keys, what, fix) in [
        ("root = §\"users/\"", "no claim", "shared = true"),
        (
            "root = §\"users/x-{claim.sub}/\"",
            "whole segment",
            "alone between slashes",
        ),
        (
            "root = \"u/{claim.a}/\"\nprefixes = [§\"b-{claim.b}/*\"]",
            "whole segment",
            "alone between slashes",
        ),
        (
            "root = \"u/\"\nprefixes = [§\"{claim.sub}*\"]",
            "begins so",
            "end the folder",
        ),
    ] {
        refuses(&template(prefix, keys), Severity::Error, what, fix);
    }
    let both = WHOLE.replace("acme/*", "users/acme/*");
    let root = TEMPLATE.replace(prefix, "root = §\"users/{claim.sub}/\"");
    let both = format!("{both}{root}");
    refuses(&both, Severity::Error, "cover the same keys", "own prefix");
    let tenant = WHOLE.replacen(
        "prefixes = [\"acme/*\"]",
        "root = §\"users/{claim.sub}/\"",
        1,
    );
    refuses(
        &tenant,
        Severity::Error,
        "a tenant has no token",
        "[templates.NAME]",
    );
}

#[test]
fn revocation_list_needs_an_authority() {
    let pem = "-----BEGIN X509 CRL-----";
    let files = ["/c", "/k", "/ca", "/crl"].map(|file| (file, pem));
    let parse = |more: &str| {
        let text = format!("{WHOLE}\n[server.tls]\ncert = \"/c\"\nkey = \"/k\"\n{more}");
        parse_with(&text, &[], &files)
    };
    let (config, _) = parse("client_ca = \"/ca\"\nclient_crl = \"/crl\"").unwrap();
    assert_eq!(config.server.tls.unwrap().client_crl, Some("/crl".into()));
    let problems = parse("client_crl = \"/crl\"").unwrap_err();
    let shown = problems[0].to_string();
    assert!(shown.contains("`client_crl` needs `client_ca`"), "{shown}");
    assert!(parse("client_ca = \"/ca\"\nclient_crl = \"/none\"").is_err());
}

#[test]
fn rejects_incomplete_and_unused_identities() {
    for (from, to, what, fix) in [
        (
            "jwks = \"https",
            "jwks = §\"http",
            "uses http://",
            "https://",
        ),
        (
            "jwks = \"https://login.example.com/.well-known/jwks.json\"",
            "jwks = §\"file:none.json\"",
            "cannot read",
            "correct the path",
        ),
        (
            "audience = \"cosgate\"",
            "audience = §\"\"",
            "empty",
            "exactly as the tokens have it",
        ),
        (
            "identity = \"corp\"",
            "identity = §\"corb\"",
            "no identity `corb`",
            "did you mean \"corp\"",
        ),
        (
            "audience =",
            "refresh = \"1h\"\nmax_key_age = §\"1h\"\naudience =",
            "less than twice `refresh`",
            "a longer max_key_age",
        ),
    ] {
        refuses(&template(from, to), Severity::Error, what, fix);
    }
    for (keys, age) in [
        ("", Duration::from_hours(24)),
        ("refresh = \"20h\"\n", Duration::from_hours(40)),
        ("max_key_age = \"10m\"\n", Duration::from_mins(10)),
    ] {
        let config = good(&template("audience =", &format!("{keys}audience =")));
        assert_eq!(config.identities[0].max_key_age, age, "{keys}");
    }
    let names_nobody = WHOLE.replace("[tenants.acme]", "[tenants.acme]\nidentity = §\"corp\"");
    let names_nobody = format!("{names_nobody}{TEMPLATE}");
    refuses(
        &names_nobody,
        Severity::Error,
        "no tenant_claim",
        "tenant_claim = ",
    );
    let named = names_nobody
        .replace('§', "")
        .replace("audience =", "tenant_claim = \"t\"\naudience =");
    assert_eq!(good(&named).tenants[0].identity, Some(0));
    let keyless = named.replace(
        "access_keys = [{ id = \"ACMEKEY0000000000001\", secret = \"env:ACME\" }]\n",
        "",
    );
    good(&keyless);
}

#[test]
fn checks_session_secrets() {
    let with = |lines: &str| WHOLE.replace("[server]", &format!("[server]\n{lines}"));
    let long = "0123456789abcdef0123456789abcdef";
    let parse = |lines: &str| {
        let found = parse_with(&with(lines), &[("A", long), ("B", long)], &[]);
        found
            .map(|(config, _)| config.server.session_secrets.len())
            .ok()
    };
    assert_eq!(parse("session_secret = \"env:A\""), Some(1));
    assert_eq!(
        parse("session_secret = \"env:A\"\nprevious_session_secret = \"env:B\""),
        Some(2)
    );
    assert_eq!(parse("previous_session_secret = \"env:B\""), None);
    assert_eq!(parse("session_secret = \"env:ACME\""), None, "too short");
    assert_eq!(parse("max_session = \"13h\""), None);
}

#[test]
fn access_key_ids_are_unique() {
    let text = format!(
        "{WHOLE}{}",
        OTHER.replace("\"OTHERKEY000000000001\"", "§\"ACMEKEY0000000000001\"")
    );
    refuses(
        &text,
        Severity::Error,
        "the tenant `acme` has the access key id",
        "its own id",
    );
}

#[test]
fn allows_one_anonymous_tenant_on_loopback() {
    let anonymous = WHOLE.replace("issuer = \"main\"", "issuer = \"main\"\nanonymous = §true");
    good(&anonymous.replace(MARK, ""));
    let remote = anonymous.replace(
        "127.0.0.1:9000\"",
        "0.0.0.0:9000\"\ntrusted_proxies = [\"192.0.2.0/24\"]",
    );
    refuses(
        &remote,
        Severity::Error,
        "anyone who reaches 0.0.0.0:9000",
        "allow_remote_anonymous",
    );
    good(
        &remote
            .replace(MARK, "")
            .replace("[server]", "[server]\nallow_remote_anonymous = true"),
    );
    let proxied = anonymous.replace("[server]", "[server]\nloopback_is_proxy = true");
    refuses(
        &proxied,
        Severity::Error,
        "nobody could use the tenant `acme`",
        "allow_remote_anonymous",
    );
    let two = format!(
        "{}{}",
        anonymous.replace(MARK, ""),
        OTHER.replace("issuer = \"main\"", "issuer = \"main\"\nanonymous = §true")
    );
    refuses(
        &two,
        Severity::Error,
        "`acme` is anonymous already",
        "one of the two",
    );
}

#[test]
fn reports_all_problems_in_order() {
    let text = "[server]\nlisten = 1\nregion = \"X\"\n[upstream]\nsignature = \"x\"\n[tenants.a]\nissuer = \"none\"\nanonymous = true\n[[tenants.a.grants]]\nname = \"A\"\nbucket = \"b\"\nregion = \"ap-beijing\"\nprefixes = [\"/\", \"x*\"]\nactions = [\"all\"]\nextra = 1\n[nothing]\n";
    let Err(problems) = parse(text) else { panic!() };
    let places: Vec<String> = problems
        .iter()
        .map(|problem| problem.location.to_string())
        .collect();
    let want = [
        "2:10", "3:10", "5:13", "7:10", "10:8", "11:10", "13:13", "13:18", "14:12", "15:1", "16:2",
    ];
    assert_eq!(
        places,
        want.map(|place| format!("etc/config.toml:{place}")),
        "{}",
        lines(&problems)
    );
}

#[test]
fn variables_override_scalar_keys() {
    let variables = [
        ("COSGATE_SERVER_LISTEN", "127.0.0.1:1"),
        ("COSGATE_SERVER_ADMIN", ""),
        ("COSGATE_SERVER_STRICT_REGION", "true"),
        ("COSGATE_SERVER_ALLOW_SIGV2_PRESIGN", "true"),
        ("COSGATE_SERVER_LIMITS_HEAD_BYTES", "32KiB"),
        ("COSGATE_ISSUERS_MAIN_SECRET_KEY", "from-the-environment"),
        ("COSGATE_ISSUERS_MAIN_DURATION", "30m"),
        ("COSGATE_TENANTS_ACME_ACCESS_KEYS_0_SECRET", "other-secret"),
        ("COSGATE_TENANTS_ACME_GRANTS_0_REGION", "ap-beijing"),
    ];
    let text = WHOLE.replace("secret_key = \"env:KEY\"\n", "");
    let (config, warnings) = parse_with(&text, &variables, &[]).unwrap();
    assert!(warnings.is_empty(), "{}", lines(&warnings));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.server.admin, None);
    assert!(config.server.strict_region);
    assert!(config.server.allow_sigv2_presign);
    assert_eq!(config.server.limits.head_bytes, 32 << 10);
    let kind = &config.issuers[0].kind;
    assert!(
        matches!(kind, IssuerKind::Federation { base: BaseKey::Given(key), .. } if key.secret_key.value.expose() == "from-the-environment")
    );
    assert_eq!(kind.duration(), Some(Duration::from_mins(30)));
    assert_eq!(
        config.tenants[0].access_keys[0].secret.value.expose(),
        "other-secret"
    );
    assert_eq!(config.tenants[0].grants[0].region, "ap-beijing");

    let Err(problems) = parse_with(WHOLE, &[("COSGATE_SERVER_LISTEN", "x")], &[]) else {
        panic!()
    };
    let want =
        "environment variable COSGATE_SERVER_LISTEN: error: `listen`: `x` is not an address\n";
    assert!(lines(&problems).starts_with(want), "{}", lines(&problems));
}

#[test]
fn paths_are_relative_to_the_file() {
    let pem = "-----BEGIN CERTIFICATE-----";
    let text = WHOLE.replace("[issuers.main]", "[server.tls]\ncert = \"c.pem\"\nkey = \"/abs/k.pem\"\n[upstream]\nca_file = \"ca.pem\"\n[issuers.main]");
    let files = [("etc/c.pem", pem), ("/abs/k.pem", pem), ("etc/ca.pem", pem)];
    let (config, _) = parse_with(&text, &[], &files).unwrap();
    let tls = config.server.tls.unwrap();
    assert_eq!(
        (tls.cert, tls.key, tls.client_ca),
        (
            PathBuf::from("etc/c.pem"),
            PathBuf::from("/abs/k.pem"),
            None
        )
    );
    assert_eq!(config.upstream.ca_file, Some(PathBuf::from("etc/ca.pem")));
    let half = WHOLE.replace(
        "[issuers.main]",
        "[server.tls]\nkey = \"k.pem\"\n[issuers.main]",
    );
    let Err(problems) = parse_with(&half, &[], &[("etc/k.pem", pem)]) else {
        panic!()
    };
    assert!(
        lines(&problems).contains("toml:4:1: error: `cert` is missing"),
        "{}",
        lines(&problems)
    );
    let files = [
        ("etc/c.pem", "der"),
        ("/abs/k.pem", pem),
        ("etc/ca.pem", pem),
    ];
    let Err(problems) = parse_with(&text, &[], &files) else {
        panic!()
    };
    assert!(
        lines(&problems).contains("etc/c.pem is not a PEM file"),
        "{}",
        lines(&problems)
    );
}

/// Every position of a secret, valid or not.
const SECRETS: &str = r#"
[upstream]
endpoint = "https://user:CANARY1@{bucket}.x"
[issuers.main]
kind = "federation"
secret_id = "CANARY2 with a space"
secret_key = "CANARY3"
secret_kye = "CANARY4"
[issuers.two]
kind = "static"
secret_id = "env:CANARY_ID"
secret_key = "env:CANARY_KEY"
token = "file:token"
[tenants.acme]
issuer = "main"
access_keys = [{ id = "CANARY5/", secret = "CANARY6\t" }, { id = "ABC", secret = ["CANARY7"] }]
"#;

#[test]
fn never_prints_a_secret() {
    let variables = [
        ("CANARY_ID", "CANARY8"),
        ("CANARY_KEY", "CANARY9\n\n"),
        ("COSGATE_TENANTS_ACME_ANONYMOUS", "true"),
    ];
    let Err(problems) = parse_with(SECRETS, &variables, &[("etc/token", "CANARY-10 x")]) else {
        panic!()
    };
    let printed = format!("{}{problems:?}", lines(&problems))
        .replace("CANARY_KEY", "")
        .replace("CANARY_ID", "");
    assert!(!printed.contains("CANARY"), "{printed}");

    let config = good(WHOLE);
    let printed = format!("{config:?}");
    for secret in ["key-of-the-issuer", "secret-of-acme"] {
        assert!(!printed.contains(secret));
    }
}

fn check(text: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosgate"));
    command.arg("check").arg("--config").arg(&file).env_clear();
    command.envs([
        ("ID", "CANARY1"),
        ("KEY", "CANARY2"),
        ("ACME", "CANARY-of-acme"),
    ]);
    command.output().unwrap()
}

#[test]
fn check_command_exits_0_or_2_without_secrets() {
    let output = check(WHOLE);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout.ends_with(
            "ok: 1 issuer, 1 tenant, 1 access key, 1 grant; listens on 127.0.0.1:9000\n"
        ),
        "{stdout}"
    );
    assert!(output.stderr.is_empty());

    let warned = check(&WHOLE.replace("acme/*", "acme*"));
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        String::from_utf8(warned.stderr)
            .unwrap()
            .contains("config.toml:15:13: warning: ")
    );

    let wrong = check(SECRETS);
    let stderr = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    assert!(stderr.contains("config.toml:3:12: error: "), "{stderr}");
    assert!(
        !stderr.replace("CANARY_", "").contains("CANARY"),
        "{stderr}"
    );
}

#[test]
fn generated_key_pair_is_valid_configuration() {
    let output = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .arg("keygen")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = stdout.lines().find(|line| line.contains(name)).unwrap();
        line.split_once('=').unwrap().1.trim().to_owned()
    };
    let (id, secret) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"));
    assert_eq!((id.len(), secret.len()), (20, 40));
    let text = WHOLE.replace(
        "[{ id = \"ACMEKEY0000000000001\", secret = \"env:ACME\" }]",
        &value("access_keys"),
    );
    let (config, _) =
        parse_with(&text, &[(&format!("COSGATE_SECRET_{id}"), &secret)], &[]).unwrap();
    assert_eq!(
        config.tenants[0].access_keys[0].secret.value.expose(),
        secret
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_damaged_file_neither_panics_nor_shows_a_secret(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..8, "[\\[\\]{}\"'=#.*\\n\\\\a-z0-9é-]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = WHOLE.replace("env:KEY", "CANARY").chars().collect();
        for (at, removed, inserted) in edits {
            let from = at.index(text.len());
            let to = (from + removed).min(text.len());
            text.splice(from..to, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        let printed = match parse(&text) {
            Ok((config, warnings)) => format!("{config:?}{}", lines(&warnings)),
            Err(problems) => lines(&problems),
        };
        // An edit may turn the secret into the name of a variable or a file, and names are printed.
        prop_assume!(!text.contains(":CANARY"));
        prop_assert!(!printed.contains("CANARY"), "{}\n{}", text, printed);
    }
}

#[test]
fn checks_certificates_and_addresses_of_tenants() {
    const TLS: &str = "[server.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
    let pem = "-----BEGIN X-----\nAAAA\n-----END X-----\n";
    let files = [("etc/c", pem), ("etc/k", pem), ("etc/a", pem)];
    let acme = "client_certs = [\"san:dns:acme.example\"]\nallowed_ips = [\"10.0.0.0/8\"]\n[[tenants.acme.grants]]";
    let text = WHOLE.replace("[[tenants.acme.grants]]", acme);
    let text = format!("{text}{TLS}");
    let (config, _) = parse_with(&text, &[("ID", "i"), ("KEY", "k"), ("ACME", "s")], &files)
        .unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    let admission = &config.tenants[0].admission;
    assert_eq!(admission.client_certs.len(), 1);
    assert_eq!(admission.allowed_ips.len(), 1);
    assert!(!admission.require_client_cert);
    let grants = "[[tenants.acme.grants]]";
    for (keys, message, fix) in [
        (
            "client_certs = [§\"san:dns:a\"]",
            "`client_certs` needs `client_ca`",
            "client_ca",
        ),
        (
            "client_certs = [§\"a\"]",
            "is not the name of a certificate",
            "san:dns:NAME",
        ),
        (
            "require_client_cert = §true",
            "the tenant has no certificate",
            "client_certs",
        ),
        (
            "allowed_ips = [§\"10.0.0.1/8\"]",
            "is not a network",
            "write 10.0.0.0/8",
        ),
    ] {
        errs(grants, &format!("{keys}\n{grants}"), message, fix);
    }
    let server = "[server]\n";
    errs(
        server,
        "[server]\ntrusted_proxies = [§\"proxy\"]\n",
        "is not a network",
        "10.0.0.0/8",
    );
    errs(
        server,
        "[server]\nproxy_protocol = §true\n",
        "`proxy_protocol` needs `trusted_proxies`",
        "add trusted_proxies",
    );
}

#[test]
fn checks_unix_sockets_and_users() {
    let variables = [("ID", "i"), ("KEY", "k"), ("ACME", "s"), ("OTHER", "o")];
    let users = [(
        "/etc/passwd",
        "root:x:0:0::/:\nalice:x:1001:1001::/:\nnobody:x:65534:1::/:\n",
    )];
    let parse_as = |listen: &str, server: &str, acme: &str| {
        let text = format!(
            "[server]\nlisten = \"{listen}\"\n{server}\n[issuers.main]\nkind = \"static\"\nsecret_id = \"env:ID\"\nsecret_key = \"env:KEY\"\n
             [tenants.acme]\nissuer = \"main\"\n{acme}\n[[tenants.acme.grants]]\nname = \"photos\"\nbucket = \"a-1250000000\"\nregion = \"ap-guangzhou\"\nprefixes = [\"acme/*\"]\nactions = [\"read\"]"
        );
        parse_with(&text, &variables, &users)
            .map(|(config, _)| config)
            .map_err(|problems| lines(&problems))
    };
    let config = parse_as(
        "unix:/run/s3.sock",
        "socket_mode = \"0660\"\ntrusted_proxies = [\"unix:alice\", \"10.0.0.0/8\", \"unix:33\"]",
        "unix_users = [\"alice\", 7, \"8\"]",
    );
    let config = config.unwrap();
    assert_eq!(config.server.listen.to_string(), "unix:/run/s3.sock");
    assert_eq!(config.server.socket_mode, 0o660);
    assert_eq!(config.server.trusted_users, [1001, 33]);
    assert_eq!(config.server.trusted_proxies.len(), 1);
    assert_eq!(config.tenants[0].admission.unix_users, [1001, 7, 8]);
    let anonymous = parse_as("unix:s3.sock", "", "anonymous = true").unwrap();
    assert_eq!(anonymous.server.listen.to_string(), "unix:etc/s3.sock");
    assert_eq!(anonymous.server.socket_mode, 0o600);
    let long = format!("unix:/{}", "x".repeat(107));
    let tcp = "127.0.0.1:1";
    let unix = "unix:/s";
    for (listen, server, acme, message) in [
        (
            "unix:",
            "",
            "unix_users = [1]",
            "is not the path of a socket",
        ),
        (&long, "", "unix_users = [1]", "is not the path of a socket"),
        (
            unix,
            "socket_mode = \"0400\"",
            "unix_users = [1]",
            "is not a mode",
        ),
        (
            tcp,
            "socket_mode = \"0600\"",
            "anonymous = true",
            "`socket_mode` has no effect",
        ),
        (
            tcp,
            "",
            "unix_users = [1]",
            "`unix_users` needs a Unix socket",
        ),
        (
            unix,
            "",
            "unix_users = [\"bob\"]",
            "no user `bob` in /etc/passwd",
        ),
        (unix, "", "unix_users = [-1]", "no user `-1`"),
        (unix, "", "unix_users = [65534]", "does not know"),
        (unix, "", "unix_users = [\"nobody\"]", "does not know"),
        (unix, "", "unix_users = [4294967295]", "does not know"),
        (
            unix,
            "",
            "unix_users = [\"alice\", 1001]",
            "has the user 1001 already",
        ),
        (unix, "", "unix_users = [true]", "not an array of strings"),
    ] {
        let problems = parse_as(listen, server, acme).unwrap_err();
        assert!(problems.contains(message), "{server} {acme}: {problems}");
    }
}

#[test]
fn shared_cache_needs_a_redis_and_a_long_key() {
    let long = "0123456789abcdef0123456789abcdef";
    let parse = |lines: &str| {
        let text = format!("{WHOLE}\n[credentials.shared]\n{lines}");
        let found = parse_with(
            &text,
            &[("A", long), ("B", "redis://:password@host:6379/1")],
            &[],
        );
        found
            .map(|(config, _)| config.credential_shared.is_some())
            .ok()
    };
    assert_eq!(parse("redis = \"env:B\"\nkey = \"env:A\""), Some(true));
    let limits = "redis = \"env:B\"\nkey = \"env:A\"\nlimits = true\nlimits_timeout =";
    assert_eq!(parse(&format!("{limits} \"5ms\"")), Some(true));
    assert_eq!(parse(&format!("{limits} \"2s\"")), None, "too long");
    assert_eq!(parse("redis = \"env:B\""), None, "no key");
    assert_eq!(parse("key = \"env:A\""), None, "no Redis");
    assert_eq!(
        parse("redis = \"env:B\"\nkey = \"env:ACME\""),
        None,
        "too short"
    );
    assert_eq!(parse("redis = \"env:A\"\nkey = \"env:A\""), None, "no URL");
}

#[test]
fn checks_the_rate_of_an_issuer() {
    let rate = |lines: &str| {
        let text = WHOLE.replace(
            "kind = \"federation\"",
            &format!("kind = \"federation\"\n{lines}"),
        );
        let found = parse_with(&text, &[], &[]);
        let rate = found.map(|(config, _)| config.issuers[0].rate);
        rate.map(|rate| (rate.per_second, rate.burst)).ok()
    };
    assert_eq!(rate(""), Some((100, 200)));
    assert_eq!(rate("calls_per_second = 20\nburst = 1"), Some((20, 1)));
    assert_eq!(rate("calls_per_second = 601"), None);
    assert_eq!(rate("burst = 0"), None);
}

#[test]
fn yaml_and_json_get_one_error() {
    for (text, format, location) in [
        (
            "server:\n  listen: 127.0.0.1:9000\nissuers:\n  main:\n    kind: federation\n",
            "YAML",
            "1:1",
        ),
        ("# mine\n---\nserver:\n  secret: CANARY\n", "YAML", "2:1"),
        ("- a: 1\n- b: 2\n", "YAML", "1:1"),
        (
            "\n{\n  \"server\": { \"listen\": \"127.0.0.1:9000\" }\n}\n",
            "JSON",
            "2:1",
        ),
    ] {
        let problems = parse(text).unwrap_err();
        let [problem] = problems.as_slice() else {
            panic!("{}", lines(&problems));
        };
        assert_eq!(
            problem.location.to_string(),
            format!("etc/config.toml:{location}")
        );
        assert!(problem.message.contains(format), "{problem}");
        assert!(
            problem.fix.contains("[server]\n") && problem.fix.contains("listen = "),
            "{problem}"
        );
        assert!(!problem.to_string().contains("CANARY"), "{problem}");
    }
    let toml = parse("listen = \"a: b\nx").unwrap_err();
    assert!(lines(&toml).contains("not TOML"), "{}", lines(&toml));
}

#[test]
fn reports_both_lines_of_repeated_keys() {
    for (text, message, location) in [
        (
            "[server]\nlisten = \"a\"\nregion = \"b\"\nlisten = \"c\"\n",
            "the key `listen` is written twice: first on line 2",
            "4:1",
        ),
        (
            "[tenants.a]\nissuer = \"m\"\n[tenants.b]\nissuer = \"m\"\n[tenants.a]\nissuer = \"m\"\nanonymous = true\n",
            "the table `[tenants.a]` is written twice: first on line 1",
            "5:10",
        ),
        (
            "[server]\nregion = \"a\"\n[upstream]\nsignature = \"s3\"\nsignature = \"cos\"\n",
            "the key `signature` is written twice: first on line 4",
            "5:1",
        ),
        (
            "[[tenants.a.grants]]\nname = \"x\"\n[[tenants.a.grants]]\nname = \"y\"\nname = \"z\"\n",
            "the key `name` is written twice: first on line 4",
            "5:1",
        ),
        (
            "server.listen = \"a\"\nserver.listen = \"b\"\n",
            "the key `listen` is written twice: first on line 1",
            "2:8",
        ),
        (
            "[server]\ntls = { cert = \"a\", cert = \"b\" }\n",
            "the key `cert` is written twice",
            "2:21",
        ),
    ] {
        let problems = parse(text).unwrap_err();
        let [problem] = problems.as_slice() else {
            panic!("{text}\n{}", lines(&problems));
        };
        assert!(problem.message.starts_with(message), "{text}\n{problem}");
        assert_eq!(
            problem.location.to_string(),
            format!("etc/config.toml:{location}"),
            "{text}"
        );
    }
}

#[test]
fn warns_about_unknown_regions() {
    for (region, fix) in [
        ("us-east-1", "COS console"),
        ("guangzhou", "did you mean \"ap-guangzhou\"?"),
        ("ap-guangzou", "did you mean \"ap-guangzhou\"?"),
    ] {
        warns(
            "region = \"ap-guangzhou\"",
            &format!("region = §\"{region}\""),
            "is not a region that COS documents",
            fix,
        );
    }
    errs(
        "region = \"ap-guangzhou\"",
        "region = §\"Ap Guangzhou\"",
        "is not a region",
        "lower-case",
    );
    warns(
        "[issuers.main]",
        "[sts]\nregion = §\"eu-west-1\"\n[issuers.main]",
        "is not a region",
        "COS console",
    );
    // The region for clients is the operator's choice.
    good(&WHOLE.replace("[server]", "[server]\nregion = \"us-east-1\""));
}

fn parse_in(text: &str, variables: &[(&str, &str)]) -> Vec<Problem> {
    let sources = Sources {
        env: &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        },
        env_names: &|| {
            variables
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect()
        },
        file: &|_| Err(io::ErrorKind::PermissionDenied.into()),
        cores: 1,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    match Config::parse("c.toml", text, &sources) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    }
}

#[test]
fn warns_about_unknown_variables() {
    let given = [
        ("ID", "AKID-of-it"),
        ("KEY", "key-of-it"),
        ("ACME", "secret-of-acme"),
    ];
    for (name, fix) in [
        (
            "COSGATE_SERVER_LISTN",
            Some("did you mean COSGATE_SERVER_LISTEN?"),
        ),
        (
            "COSGATE_TENANTS_AMCE_ISSUER",
            Some("did you mean COSGATE_TENANTS_ACME_ISSUER?"),
        ),
        (
            "COSGATE_TENANTS_ACME_ACCESS_KEYS_1_SECRET",
            Some("did you mean COSGATE_TENANTS_ACME_ACCESS_KEYS_0_SECRET?"),
        ),
        ("COSGATE_ISSUERS_MAIN_ROLE_ARN", Some("unset it")),
        ("COSGATE_SERVER_DOMAINS", Some("arrays have none")),
        (
            "cosgate_server_region",
            Some("did you mean COSGATE_SERVER_REGION?"),
        ),
        ("COSGATE_LOGS", Some("did you mean COSGATE_LOG?")),
        ("COSGATE_LOG", None),
        ("COSGATE_SERVER_REGION", None),
        ("COSGATE_SERVICE_HOST", None),
        ("COSGATE_SERVICE_PORT_S3", None),
        ("COSGATE_PORT", None),
        ("COSGATE_PORT_9000_TCP_ADDR", None),
        ("SERVER_LISTEN", None),
    ] {
        let variables = [given.as_slice(), &[(name, "ap-guangzhou")]].concat();
        let problems = parse_in(WHOLE, &variables);
        match (problems.as_slice(), fix) {
            ([], None) => {}
            ([problem], Some(fix)) => {
                assert_eq!(problem.severity, Severity::Warning);
                assert_eq!(
                    problem.location.to_string(),
                    format!("environment variable {name}")
                );
                assert!(problem.fix.contains(fix), "{problem}");
            }
            (problems, _) => panic!("{name}: {}", lines(problems)),
        }
    }
}

#[test]
fn warns_about_weak_secrets() {
    let secret = |text: &str| format!("secret = §\"{text}\"");
    let from = "secret = \"env:ACME\"";
    for text in [
        "${ACME_SECRET}",
        "$ACME_SECRET",
        "{{ ACME_SECRET }}",
        "%ACME_SECRET%",
        "ENV:ACME_SECRET",
    ] {
        errs(
            from,
            &secret(text),
            "expands no variables",
            "\"env:ACME_SECRET\"",
        );
    }
    errs(from, &secret("<secret>"), "placeholder", "env:NAME");
    let short = parse_in(WHOLE, &[("ID", "AKID"), ("KEY", "key"), ("ACME", "short")]);
    assert!(
        lines(&short).contains("`secret` is shorter than 12 characters"),
        "{}",
        lines(&short)
    );
    assert!(!lines(&short).contains("short`"), "{}", lines(&short));
    let aws = parse_in(
        WHOLE,
        &[
            ("ID", "AKIAIOSFODNN7EXAMPLE"),
            ("KEY", "key"),
            ("ACME", "secret-of-acme"),
        ],
    );
    assert!(
        lines(&aws).contains("looks like the access key ID of an AWS account"),
        "{}",
        lines(&aws)
    );
    assert!(!lines(&aws).contains("IOSFODNN7"), "{}", lines(&aws));
    warns(
        "id = \"ACMEKEY0000000000001\"",
        "id = §\"AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE\"",
        "SecretId of Tencent Cloud",
        "cosgate keygen",
    );
    let unset = parse_in(WHOLE, &[("ID", "AKID"), ("KEY", "key"), ("ACMEE", "x")]);
    assert!(
        lines(&unset).contains("did you mean ACMEE, which is set?"),
        "{}",
        lines(&unset)
    );
}

#[test]
fn warns_about_remote_listeners_without_tls() {
    let listen = "listen = \"127.0.0.1:9000\"";
    let remote = "listen = §\"0.0.0.0:9000\"";
    warns(listen, remote, "without TLS", "[server.tls]");
    warns(
        listen,
        "listen = §\"[2001:db8::1]:9000\"",
        "without TLS",
        "[server.tls]",
    );
    let behind = format!(
        "{}\ntrusted_proxies = [\"10.0.0.0/8\"]",
        remote.replace(MARK, "")
    );
    good(&WHOLE.replace(listen, &behind));
    good(&WHOLE.replace(listen, "listen = \"[::1]:9000\""));
    let tls = format!(
        "{}[server.tls]\ncert = \"c.pem\"\nkey = \"c.pem\"\n",
        WHOLE.replace(listen, &remote.replace(MARK, ""))
    );
    let (_, warnings) = parse_with(&tls, &[], &[("etc/c.pem", "-----BEGIN X-----")]).unwrap();
    assert!(warnings.is_empty(), "{}", lines(&warnings));
}

#[test]
fn suggests_the_right_table_of_a_key() {
    errs(
        "[issuers.main]",
        "[upstream]\n§connect_timeout = \"1s\"\n[issuers.main]",
        "unknown key `connect_timeout`",
        "[upstream.limits]",
    );
    errs(
        "name =",
        "§issuer = \"main\"\nname =",
        "unknown key `issuer` in [tenants.acme.grants]",
        "[tenants.NAME]",
    );
    errs(
        "kind =",
        "§role_arn = \"x\"\nkind =",
        "an issuer of kind \"federation\" has no key `role_arn`",
        "\"assume-role\" or \"web-identity\"",
    );
}

#[test]
fn suggests_the_intended_value() {
    for (line, message, fix) in [
        ("max_presign = §\"30\"", "has no unit", "\"30s\""),
        ("max_presign = §30", "has no unit", "\"30s\""),
        ("max_presign = §\"1d\"", "is not a duration", "\"24h\""),
        (
            "max_presign = §\"5 minutes\"",
            "is not a duration",
            "\"5m\"",
        ),
        (
            "admin = §\"9001\"",
            "is not an address",
            "\"127.0.0.1:9001\"",
        ),
        (
            "admin = §\"http://127.0.0.1:9001/\"",
            "is not an address",
            "without a scheme",
        ),
        ("threads = §\"4KiB\"", "is not a whole number", "digits"),
        (
            "domains = §\"s3.example.com\"",
            "is a string, not an array",
            "domains = [\"s3.example.com\"]",
        ),
    ] {
        errs(
            "[issuers.main]",
            &format!("{line}\n[issuers.main]"),
            message,
            fix,
        );
    }
    errs(
        "[issuers.main]",
        "[server.limits]\nhead_bytes = §\"16KB\"\n[issuers.main]",
        "is not a size",
        "16KiB",
    );
    errs(
        "[issuers.main]",
        "[sts]\nendpoint = §\"https://sts.example.com/x\"\n[issuers.main]",
        "has a path",
        "`/`",
    );
    warns(
        "[issuers.main]",
        "[upstream]\nendpoint = §\"https://{bucket}.cos.example.com/x\"\n[issuers.main]",
        "start of every key",
        "`root`",
    );
    warns(
        "[issuers.main]",
        "[upstream]\nendpoint = §\"https://cos.{region}.myqcloud.com/{bucket}\"\n[issuers.main]",
        "since 2024",
        "https://{bucket}.cos",
    );
    errs(
        "[[tenants.acme.grants]]",
        "§[tenants.acme.grants]",
        "`grants` is a table, not an array of tables",
        "[[tenants.acme.grants]]",
    );
}

#[test]
fn warns_about_keys_without_effect() {
    warns(
        "kind =",
        "profile_file = §\"x\"\nkind =",
        "has no effect without `profile`",
        "remove profile_file",
    );
    warns(
        "kind =",
        "command_env = §[\"X\"]\nkind =",
        "has no effect without `command`",
        "remove command_env",
    );
}

#[test]
fn unreadable_file_gets_advice() {
    let denied = parse_in(
        &WHOLE.replace("env:KEY", "file:/key"),
        &[("ID", "AKID"), ("ACME", "secret-of-acme")],
    );
    assert!(
        lines(&denied).contains("cannot read /key"),
        "{}",
        lines(&denied)
    );
    assert!(lines(&denied).contains("`chmod`"), "{}", lines(&denied));
}

/// A CORS rule at the end of the smallest file.
fn with_rule(rule: &str) -> String {
    format!("{WHOLE}[[tenants.acme.grants.cors]]\n{rule}\n")
}

#[test]
fn reads_cors_rules_of_a_grant() {
    let rule = "origins = [\"https://app.example.com\", \"http://localhost:*\"]\nmethods = [\"GET\", \"PUT\"]";
    let more =
        "headers = [\"Content-Type\", \"x-amz-*\"]\nexpose = [\"X-Other\"]\nmax_age = \"10m\"";
    let text = format!(
        "{}[[tenants.acme.grants.cors]]\n{rule}\n{more}\n",
        with_rule(rule)
    );
    let config = good(&text);
    let [first, second] = &*config.tenants[0].grants[0].cors else {
        panic!("two rules were wanted");
    };
    assert_eq!(first.origins, second.origins);
    assert!(first.origins[1].matches("http://localhost:3000"));
    assert_eq!((first.headers.len(), first.expose.len()), (0, 0));
    assert_eq!(first.max_age, Duration::from_hours(1));
    assert!(second.headers[0].matches("content-type"));
    assert_eq!(second.expose, ["x-other"]);
    assert_eq!(second.max_age, Duration::from_mins(10));
    let max_age = [("COSGATE_TENANTS_ACME_GRANTS_0_CORS_1_MAX_AGE", "2m")];
    let (config, _) = parse_with(&text, &max_age, &[]).unwrap();
    assert_eq!(
        config.tenants[0].grants[0].cors[1].max_age,
        Duration::from_mins(2)
    );
}

#[test]
fn checks_cors_rules() {
    let get = "methods = [\"GET\"]";
    for (origin, message, fix) in [
        (
            "https://app.example.com/",
            "more than scheme, host and port",
            "https://app.example.com",
        ),
        ("app.example.com", "no scheme", "https://app.example.com"),
        (
            "https://App.example.com",
            "lower case",
            "\"https://app.example.com\"",
        ),
        (
            "https://app.example.com:443",
            "default port",
            "\"https://app.example.com\"",
        ),
        ("https://*.*.com", "two `*`", "one `*`"),
        ("null", "sandboxed", "\"*\""),
    ] {
        let text = with_rule(&format!("origins = [§\"{origin}\"]\n{get}"));
        refuses(&text, Severity::Error, message, fix);
    }
    let of = |rest: &str| with_rule(&format!("origins = [\"https://app.example.com\"]\n{rest}"));
    refuses(
        &of("methods = [§\"get\"]"),
        Severity::Error,
        "`get` is not allowed here",
        "\"GET\"",
    );
    refuses(
        &of("methods = [§\"PATCH\"]"),
        Severity::Error,
        "`PATCH`",
        "\"DELETE\"",
    );
    refuses(
        &of("methods = §[]"),
        Severity::Error,
        "the rule allows nothing",
        "\"GET\"",
    );
    refuses(
        &of(&format!("{get}\nheaders = [§\"a b\"]")),
        Severity::Error,
        "not a header's name",
        "x-amz",
    );
    refuses(
        &of(&format!("{get}\nexpose = [§\"*\"]")),
        Severity::Error,
        "no meaning here",
        "ETag",
    );
    refuses(
        &of(&format!("{get}\nmax_age = §60")),
        Severity::Error,
        "60",
        "60s",
    );
    refuses(
        &of(&format!("{get}\n§origin = []")),
        Severity::Error,
        "unknown key `origin`",
        "`origins`",
    );
    let text = with_rule(&format!("origins = [§\"https://*example.com\"]\n{get}"));
    refuses(
        &text,
        Severity::Warning,
        "other people's sites",
        "https://*.example.com",
    );
    let text = with_rule(&format!("origins = [§\"https://*\"]\n{get}"));
    refuses(&text, Severity::Warning, "every site", "\"*\"");
    let key = "access_keys = [{ id = \"ACMEKEY0000000000001\", secret = \"env:ACME\" }]";
    let text = with_rule("origins = [\"*\"]\nmethods = [\"GET\", \"PUT\"]");
    let text = text.replacen(key, "anonymous = §true", 1);
    refuses(
        &text,
        Severity::Warning,
        "every web page",
        "name the origins",
    );
    good(&text.replace('§', "").replace(", \"PUT\"", ""));
    let hundred = format!("[[tenants.acme.grants.cors]]\norigins = [\"*\"]\n{get}\n").repeat(101);
    let problems = parse(&format!("{WHOLE}{hundred}")).unwrap_err();
    assert!(
        lines(&problems).contains("101 rules"),
        "{}",
        lines(&problems)
    );
}

/// `WHOLE` with included files of tenants.
fn including(files: &[(&str, &str)]) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let text = format!("[include]\nfiles = [\"tenants.d/*.toml\"]\n{WHOLE}");
    parse_with(&text, &[], files)
}

const INITECH: &str = r#"[tenants.initech]
issuer = "main"
access_keys = [{ id = "INITECHKEY0000000001", secret = "file:keys/initech" }]
[[tenants.initech.grants]]
name = "photos"
bucket = "initech-1250000000"
region = "ap-guangzhou"
prefixes = ["initech/*"]
actions = ["read"]
"#;

#[test]
fn reads_included_files() {
    let files = [
        ("etc/tenants.d/initech.toml", INITECH),
        ("etc/tenants.d/keys/initech", "secret-of-initech"),
        ("etc/tenants.d/.hidden.toml", "["),
        ("etc/tenants.d/README", "["),
    ];
    let (config, warnings) = including(&files).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let initech = config.tenants.last().unwrap();
    assert_eq!(initech.name, "initech");
    let key = initech.access_keys.first().unwrap();
    assert_eq!(
        key.secret.value.expose(),
        "secret-of-initech",
        "beside its own file"
    );
    let named: Vec<_> = config
        .files
        .iter()
        .map(|file| file.path.to_str().unwrap())
        .collect();
    for path in [
        "etc/tenants.d",
        "etc/tenants.d/initech.toml",
        "etc/tenants.d/keys/initech",
    ] {
        assert!(named.contains(&path), "{path}: {named:?}");
    }
}

#[test]
fn reports_file_and_line_of_included_problems() {
    let secret = ("etc/tenants.d/keys/initech", "secret-of-initech");
    let of_server = format!("[server]\nregion = \"x\"\n{INITECH}");
    let unknown = INITECH.replace("issuer = \"main\"", "issuer = \"mein\"");
    for (text, expected) in [
        (
            unknown.as_str(),
            "etc/tenants.d/b.toml:2:10: error: `issuer`: there is no issuer `mein`",
        ),
        (
            &INITECH.replace("region", "regiun"),
            "etc/tenants.d/b.toml:7:1: error: unknown key `regiun`",
        ),
        (
            &of_server,
            "etc/tenants.d/b.toml:1:1: error: `server` does not belong in an included file",
        ),
        ("[tenants.x]\n\n = 1", "etc/tenants.d/b.toml:3:"),
        (
            &format!("{INITECH}\n{INITECH}"),
            "written twice: first on line 1",
        ),
    ] {
        let problems = including(&[("etc/tenants.d/b.toml", text), secret]).unwrap_err();
        assert!(
            lines(&problems).contains(expected),
            "{expected}: {}",
            lines(&problems)
        );
    }
    // Repeated in two files: the error names both positions.
    let twice = [
        ("etc/tenants.d/a.toml", INITECH),
        ("etc/tenants.d/b.toml", INITECH),
        secret,
    ];
    let problems = including(&twice).unwrap_err();
    let expected = "etc/tenants.d/b.toml:1:10: error: `[tenants.initech]` is written twice: first at etc/tenants.d/a.toml:1:10";
    assert!(lines(&problems).contains(expected), "{}", lines(&problems));
    let problems = including(&[]).unwrap_err();
    assert!(
        lines(&problems).contains("`files`: cannot list etc/tenants.d"),
        "{}",
        lines(&problems)
    );
}

#[test]
fn warns_about_expiring_keys() {
    let secret = ("etc/tenants.d/keys/initech", "secret-of-initech");
    for (end, expected) in [
        ("2026-05-01T00:00:00Z", Some("past its `not_after`")),
        ("2026-05-30T00:00:00Z", Some("ends within 7 days")),
        ("2026-12-01T00:00:00Z", None),
    ] {
        let until = format!("\"file:keys/initech\", not_after = \"{end}\"");
        let text = INITECH.replace("\"file:keys/initech\"", &until);
        let (config, warnings) = including(&[("etc/tenants.d/b.toml", &text), secret]).unwrap();
        let key = config
            .tenants
            .last()
            .unwrap()
            .access_keys
            .first()
            .unwrap()
            .clone();
        assert_eq!(key.not_after, Timestamp::parse_iso8601(end));
        assert_eq!(
            warnings.len(),
            usize::from(expected.is_some()),
            "{warnings:?}"
        );
        assert!(
            expected.is_none_or(|text| lines(&warnings).contains(text)),
            "{warnings:?}"
        );
    }
}
