//! The admin API and the status page: what they show, to whom, and what they never show.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cosgate::emulator::{Emulator, Faults, StsFault};
use serde_json::Value;

use crate::support::{self, ACCOUNT, ACME, BUCKET, Call, GLOBEX, Program, Reply, eventually, toml};

const PHOTO: &str = "/photos/acme/photo-0001.jpg";
const TOKEN: &str = "admin-token-of-the-test";
/// Pages that need the token if there is one.
const PAGES: [&str; 9] = [
    "/",
    "/config",
    "/keys",
    "/metrics",
    "/status.css",
    "/status.js",
    "/status.json",
    "/tenants",
    "/nothing-is-here",
];

fn text(emulator: &Emulator, more: &str) -> String {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), more);
    text.replace("admin = \"\"", "admin = \"127.0.0.1:0\"")
}

fn with_server_key(text: &str, key: &str) -> String {
    text.replacen("[server]", &format!("[server]\n{key}"), 1)
}

fn get(admin: SocketAddr, target: &str) -> Reply {
    Call::new(admin, "GET", target).send()
}

/// A document of the API.
fn json(admin: SocketAddr, target: &str) -> Value {
    let reply = get(admin, target);
    assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_str(&reply.text()).unwrap()
}

fn refresh(admin: SocketAddr, query: &str) -> (u16, Value) {
    let reply = Call::new(admin, "POST", &format!("/keys/refresh{query}")).send();
    (reply.status, serde_json::from_str(&reply.text()).unwrap())
}

/// The key of this name, as `/keys` has it.
fn key(admin: SocketAddr, name: &str) -> Option<Value> {
    let keys = json(admin, "/keys")["keys"].as_array().unwrap().clone();
    keys.into_iter().find(|key| key["name"] == name)
}

fn photo(addr: SocketAddr, by: (&str, &str), target: &str) -> u16 {
    Call::new(addr, "GET", target).signed_by(by).send().status
}

#[test]
fn shows_each_tenant_with_its_key_and_traffic() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    assert_eq!(photo(program.addr, ACME, PHOTO), 404);
    assert_eq!(photo(program.addr, ACME, "/photos/globex/x"), 403);
    let printed = json(admin, "/tenants");
    assert_eq!(
        (&printed["found"], &printed["next"]),
        (&3.into(), &Value::Null)
    );
    let tenants = printed["tenants"].as_array().unwrap();
    let names: Vec<_> = tenants
        .iter()
        .map(|tenant| tenant["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["acme", "anyone", "globex"]);
    let acme = &tenants[0];
    assert_eq!(acme["issuer"], "main");
    assert_eq!(acme["access_keys"][0]["id"], ACME.0);
    assert_eq!(acme["grants"][0]["bucket"], BUCKET);
    assert_eq!(acme["grants"][0]["prefixes"][0], "acme/*");
    assert_eq!(acme["key"]["state"], "live");
    eventually("the log's end is the request's", || {
        json(admin, "/tenants?search=ACM")["tenants"][0]["traffic"]["requests"]["4xx"] == 2
    });
    assert_eq!(tenants[1]["anonymous"], true);
    assert_eq!(tenants[2]["key"]["state"], "none");
    assert_eq!(json(admin, "/tenants?search=obe")["found"], 1);
    assert_eq!(json(admin, "/tenants?search=nobody")["found"], 0);
}

#[test]
fn shows_a_key_s_life_and_never_the_key() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    assert_eq!(key(admin, "acme"), None, "no request has needed it");
    assert_eq!(photo(program.addr, ACME, PHOTO), 404);
    let acme = key(admin, "acme").unwrap();
    assert_eq!(
        (&acme["state"], &acme["generation"]),
        (&"live".into(), &1.into())
    );
    assert_eq!(
        (&acme["tenant"], &acme["issuer"]),
        (&"acme".into(), &"main".into())
    );
    assert_eq!(acme["scope"][0], format!("{BUCKET}/acme/*"));
    let (expires, refresh) = (
        acme["expires_in"].as_i64().unwrap(),
        acme["refresh_in"].as_i64().unwrap(),
    );
    assert!((1795..=1800).contains(&expires), "{acme}");
    assert!(
        (850..=1450).contains(&refresh),
        "between 50 and 80 % of its use: {acme}"
    );
    assert_eq!(acme["failure"], Value::Null);
    let fields: BTreeSet<_> = acme
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "expires_at",
        "expires_in",
        "failure",
        "generation",
        "issuer",
        "more_scope",
        "name",
        "refresh_at",
        "refresh_in",
        "scope",
        "state",
        "tenant",
    ];
    assert_eq!(
        fields,
        BTreeSet::from(expected),
        "nothing else may be there"
    );
}

#[test]
fn refreshes_the_key_of_one_tenant_or_all() {
    let emulator = support::emulator();
    let spare = format!(
        "[issuers.spare]\nkind = \"static\"\nsecret_id = \"env:ACCOUNT_ID\"\nsecret_key = \"env:ACCOUNT_SECRET\"\n\
         [tenants.fixed]\nissuer = \"spare\"\naccess_keys = [{{ id = \"FIXEDKEY000000000001\", secret = \"env:ACME_SECRET\" }}]\n\
         [[tenants.fixed.grants]]\nname = \"photos\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\nprefixes = [\"fixed/*\"]\nactions = [\"read\"]\n"
    );
    let program = Program::serve(&text(&emulator, &spare));
    let admin = program.address("admin=");
    let generation = |name| key(admin, name).map_or(0, |key| key["generation"].as_u64().unwrap());
    assert_eq!(photo(program.addr, ACME, PHOTO), 404);
    assert_eq!(photo(program.addr, GLOBEX, "/photos/globex/x"), 404);
    assert_eq!(
        refresh(admin, "?tenant=acme"),
        (202, serde_json::json!({ "requested": 1 }))
    );
    eventually("acme has another key", || generation("acme") == 2);
    assert_eq!(generation("globex"), 1);
    assert_eq!(photo(program.addr, ACME, PHOTO), 404, "it works");
    assert_eq!(
        refresh(admin, ""),
        (202, serde_json::json!({ "requested": 2 }))
    );
    eventually("both have another key", || {
        (generation("acme"), generation("globex")) == (3, 2)
    });
    assert_eq!(
        refresh(admin, "?tenant=anyone").0,
        202,
        "one that had no key"
    );
    eventually("it has its first", || generation("anyone") == 1);
    let (status, printed) = refresh(admin, "?tenant=nobody");
    assert_eq!(status, 404);
    assert!(
        printed["error"].as_str().unwrap().contains("/tenants"),
        "{printed}"
    );
    assert_eq!(refresh(admin, "?tenant=fixed").0, 409);
    assert_eq!(refresh(admin, "?tenants=acme").0, 400);
    assert_eq!(get(admin, "/keys/refresh").status, 405);
    let of_a_page = Call::new(admin, "POST", "/keys/refresh").header("Origin", "http://127.0.0.1");
    assert_eq!(of_a_page.send().status, 403);
}

#[test]
fn a_key_that_cannot_be_renewed_serves_on_and_says_why() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    assert_eq!(photo(program.addr, ACME, PHOTO), 404);
    emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    assert_eq!(refresh(admin, "?tenant=acme").0, 202);
    eventually("the call has failed", || {
        key(admin, "acme").unwrap()["state"] == "failing"
    });
    let acme = key(admin, "acme").unwrap();
    assert!(acme["failure"].as_str().unwrap().contains("500"), "{acme}");
    assert_eq!(acme["generation"], 1);
    assert_eq!(
        photo(program.addr, ACME, PHOTO),
        404,
        "the old key serves on"
    );
    let page = get(admin, "/").text();
    assert!(
        page.contains("1 keys fail") && page.contains("badge bad\">failing"),
        "{page}"
    );
}

#[test]
fn shows_the_configuration_with_the_places_of_secrets_alone() {
    let emulator = support::emulator();
    let literal = "literal-secret-of-the-configuration-0000";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let more = format!(
        "[tenants.open]\nissuer = \"main\"\nvend = true\nvend_tokens = [\"file:{file}\"]\n\
         access_keys = [{{ id = \"OPENKEY0000000000001\", secret = \"{literal}\" }}]\n\
         [[tenants.open.grants]]\nname = \"photos\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\nprefixes = [\"open/*\"]\nactions = [\"read\"]\n",
        file = file.display()
    );
    let program = Program::serve(&text(&emulator, &more));
    let admin = program.address("admin=");
    let whole = get(admin, "/config").text();
    let page = get(admin, "/").text();
    for secret in [literal, TOKEN, ACME.1, GLOBEX.1, ACCOUNT.0, ACCOUNT.1] {
        for (path, text) in [("/config", &whole), ("/", &page)] {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
        assert!(!get(admin, "/tenants").text().contains(secret));
        assert!(!get(admin, "/status.json").text().contains(secret));
    }
    let tables = json(admin, "/config")["tables"].as_array().unwrap().clone();
    let keys = |name: &str| {
        let table = tables.iter().find(|table| table["table"] == name);
        table.map(|table| table["keys"].clone()).unwrap()
    };
    assert_eq!(
        keys("tenants.open")["access_keys"][0]["secret"],
        "(in the configuration itself)"
    );
    assert_eq!(
        keys("tenants.open")["vend_tokens"][0],
        format!("file:{}", file.display())
    );
    assert_eq!(keys("issuers.main")["secret_key"], "env:ACCOUNT_SECRET");
    assert_eq!(keys("server.limits")["head_timeout"], "10s", "a default");
    assert_eq!(
        keys("upstream")["connect_to"],
        emulator.cos_addr().to_string()
    );
    assert_eq!(keys("server").get("admin_token"), None, "it is not set");
}

#[test]
fn lists_come_page_by_page() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = json(admin, &format!("/config?limit=2&after={after}"));
        let tables = page["tables"].as_array().unwrap();
        assert!(tables.len() <= 2);
        names.extend(
            tables
                .iter()
                .map(|table| table["table"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert!(names.is_sorted() && names.len() > 10, "{names:?}");
    for name in [
        "tenants.acme",
        "tenants.anyone",
        "issuers.main",
        "server.limits",
        "sts.limits",
    ] {
        assert_eq!(
            names.iter().filter(|known| *known == name).count(),
            1,
            "{name}"
        );
    }
    let first = json(admin, "/tenants?limit=1");
    assert_eq!(
        (&first["next"], &first["found"]),
        (&"acme".into(), &3.into())
    );
    assert_eq!(
        json(admin, "/tenants?limit=1&after=acme")["tenants"][0]["name"],
        "anyone"
    );
    for wrong in [
        "/tenants?limit=0",
        "/tenants?limit=1001",
        "/keys?limit=x",
        "/config?page=2",
        "/keys?after=a&after=b",
    ] {
        let reply = get(admin, wrong);
        assert_eq!(reply.status, 400, "{wrong}");
        let printed: Value = serde_json::from_str(&reply.text()).unwrap();
        assert!(printed["error"].is_string(), "{printed}");
    }
}

#[test]
fn needs_the_token_where_there_is_one() {
    let emulator = support::emulator();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let key = format!("admin_token = \"file:{}\"", file.path().display());
    let program = Program::serve(&with_server_key(&text(&emulator, ""), &key));
    let admin = program.address("admin=");
    let with = |target: &str, value: &str| {
        let call = Call::new(admin, "GET", target);
        call.header("Authorization", value).send().status
    };
    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("any user:{TOKEN}"))
    );
    for page in PAGES {
        let refused = get(admin, page);
        assert_refused(&refused, page, 401);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        assert_eq!(with(page, "Bearer another-token-of-16"), 401, "{page}");
        let found = if page.contains("nothing") { 404 } else { 200 };
        assert_eq!(with(page, &format!("Bearer {TOKEN}")), found, "{page}");
        assert_eq!(with(page, &basic), found, "{page}");
    }
    for page in ["/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(get(admin, page).status, 200, "{page}");
    }
    for page in ["/reload", "/keys/refresh"] {
        assert_refused(&Call::new(admin, "POST", page).send(), page, 401);
    }
    let page = Call::new(admin, "GET", "/config")
        .header("Authorization", &basic)
        .send()
        .text();
    assert!(
        !page.contains(TOKEN) && page.contains("\"admin_token\": \"file:"),
        "{page}"
    );
}

#[test]
fn the_page_shows_failures_escaped_and_runs_no_other_script() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    let fails = |target: &str, by| {
        Call::new(program.addr, "GET", target)
            .signed_by(by)
            .send()
            .status
    };
    assert_eq!(fails(PHOTO, (ACME.0, "wrong")), 403);
    assert_eq!(fails("/photos/globex/x", ACME), 403);
    let mut page = String::new();
    eventually("the failures are there", || {
        page = get(admin, "/").text();
        page.contains("403 SignatureDoesNotMatch") && page.contains("403 AccessDenied")
    });
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    let search = get(admin, "/?search=%22%3E%3Cscript%3Ealert(3)%3C/script%3E").text();
    assert!(
        !search.contains("<script>alert") && search.contains("&lt;script&gt;alert(3)"),
        "{search}"
    );
    for target in PAGES {
        let reply = get(admin, target);
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            reply.header("cross-origin-resource-policy"),
            Some("same-origin")
        );
        assert_eq!(
            Call::new(admin, "POST", target).send().status,
            405,
            "{target}"
        );
        let elsewhere = Call::new(admin, "GET", target).header("Sec-Fetch-Site", "cross-site");
        assert_eq!(elsewhere.send().status, 403, "{target}");
    }
    // Whatever the page loads is cosgate's own.
    let page = page.replace("http://127.0.0.1", "");
    for outside in [
        "href=\"http",
        "src=\"http",
        "href=\"//",
        "src=\"//",
        "style=\"",
        "onclick",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_name_that_another_site_points_here_gets_nothing() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    for target in PAGES {
        let reply = with_hosts(admin, target, &["rebound.example:9001"]);
        assert_refused(&reply, target, 421);
        // RFC 9112 section 3.2.2: the host of an absolute target counts, and not `Host`.
        let absolute = |host: &str| get(admin, &format!("http://{host}{target}"));
        assert_refused(&absolute("rebound.example"), target, 421);
        assert_refused(&absolute("localhost@rebound.example"), target, 421);
        let found = if target.contains("nothing") { 404 } else { 200 };
        assert_eq!(absolute("localhost").status, found, "{target}");
    }
}

/// Refused with this status: the reason is JSON.
fn assert_refused(reply: &Reply, path: &str, status: u16) {
    let text = reply.text();
    assert_eq!(reply.status, status, "{path}: {text}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/json"),
        "{path}"
    );
    let said: Value = serde_json::from_str(&text).unwrap();
    assert!(
        said["error"].as_str().is_some_and(|why| !why.is_empty()),
        "{said}"
    );
}

#[test]
fn every_refusal_is_json() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/tenants",
        "/status.css",
        "/reload",
    ] {
        let method = if path == "/reload" { "GET" } else { "PUT" };
        assert_refused(&Call::new(admin, method, path).send(), path, 405);
        let of_page = Call::new(admin, "POST", path).header("sec-fetch-site", "cross-site");
        assert_refused(&of_page.send(), path, 403);
        assert_refused(&with_hosts(admin, path, &[]), path, 400);
        assert_refused(&with_hosts(admin, path, &["localhost"; 2]), path, 400);
        let port = with_hosts(admin, path, &["127.0.0.1:99999999"]);
        assert_refused(&port, path, 400);
    }
    assert_refused(&get(admin, "/nothing-is-here"), "/nothing-is-here", 404);
    assert_refused(&get(admin, "/tenants?limit=0"), "/tenants", 400);
}

fn with_hosts(admin: SocketAddr, target: &str, hosts: &[&str]) -> Reply {
    let mut call = Call::new(admin, "GET", target);
    call.headers
        .retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
    let with = |call: Call, host: &&str| call.header("Host", host);
    hosts.iter().fold(call, with).send()
}

#[test]
fn counts_rates_for_the_charts() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    assert_eq!(photo(program.addr, ACME, PHOTO), 404);
    let status = json(admin, "/status.json");
    assert_eq!(status["keys"]["live"], 1);
    assert_eq!(status["upstream_connections"], 1);
    assert_eq!(status["issuers"][0]["name"], "main");
    assert_eq!(status["issuers"][0]["held_back"], false);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["samples"].is_array());
}
