//! The line that each decision leaves: who called, what became of it, and the step that refused.
#![expect(
    clippy::indexing_slicing,
    reason = "a field that is not there is Null, and fails its test"
)]

use crate::support::{self, ACME, Call, GLOBEX, Gateway, Scripted, World, act, eventually, toml};
use cosgate::clock::wall_clock;
use cosgate::emulator::{CosFault, Faults, StsFault};
use cosgate::secret::Secret;
use cosgate::sign::sigv2;
use http::HeaderMap;
use serde_json::Value;

/// The line of the request whose response had this id.
fn line(gateway: &Gateway, id: Option<&str>) -> Value {
    let id = id.unwrap_or_default();
    gateway.log.assert_contains(id);
    let text = gateway.log.text();
    let line = text
        .lines()
        .find(|line| line.contains(id))
        .unwrap_or_default();
    serde_json::from_str(line).unwrap_or_default()
}

#[track_caller]
fn logged(gateway: &Gateway, call: &Call, verdict: &str, step: Option<&str>) -> Value {
    let reply = call.send();
    let line = line(gateway, reply.header("x-amz-request-id"));
    let printed = (line["verdict"].as_str(), line["step"].as_str());
    assert_eq!(printed, (Some(verdict), step), "{line}");
    assert_eq!(line["status"], reply.status, "{line}");
    let client = line["client"].as_str().unwrap_or_default();
    assert_eq!(client, "127.0.0.1", "{line}");
    line
}

#[test]
fn what_was_allowed_is_logged_with_its_caller_and_coss_response() {
    let world = World::with("[tenants.acme.limits]\nobject_size = \"1KiB\"");
    let ok = |call: &Call| logged(&world.gateway, call, "allowed", None);
    let line = ok(&world.signed("PUT", "/photos/acme/x").body("hello"));
    assert_eq!(
        (&line["identity"], &line["key_id"]),
        (&"sigv4".into(), &ACME.0.into())
    );
    assert_eq!(
        (&line["operation"], &line["bucket"]),
        (&"PutObject".into(), &"photos".into())
    );
    assert_eq!(
        (&line["received"], &line["upstream_status"]),
        (&5.into(), &200.into())
    );
    assert!(
        line["upstream_ms"].as_f64() <= line["duration_ms"].as_f64(),
        "{line}"
    );
    assert!(line["upstream_ms"].as_f64() > Some(0.0), "{line}");
    assert!(line["upstream_request_id"].is_string(), "{line}");
    assert_eq!(line["tries"], Value::Null);

    let line = ok(&world.signed("GET", "/photos/acme/x").presigned(60));
    assert_eq!(
        (&line["identity"], &line["sent"]),
        (&"presigned".into(), &5.into())
    );
    let nobody = Call::new(world.gateway.addr, "GET", "/photos/public/none");
    let line = ok(&nobody); // that it is not there is COS's word
    assert_eq!(
        (&line["identity"], &line["key_id"]),
        (&"anonymous".into(), &Value::Null)
    );
    assert_eq!(
        (&line["code"], &line["tenant"]),
        (&"NoSuchKey".into(), &"anyone".into())
    );
    let location = world.signed("GET", "/photos?location");
    let line = logged(&world.gateway, &location, "answered_here", None);
    assert_eq!(line["upstream_ms"], Value::Null);
}

#[test]
fn what_a_copy_reads_and_a_multi_delete_may_not_is_logged() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    let ok = |call: &Call| logged(&world.gateway, call, "allowed", None);

    let copy = world.signed("PUT", "/photos/acme/b");
    let line = ok(&copy.header("x-amz-copy-source", "photos/acme/a"));
    assert_eq!(
        (&line["key"], &line["source"]),
        (&"acme/b".into(), &"photos/acme/a".into())
    );
    let copy = world.signed("PUT", "/photos/acme/b");
    let copy = copy.header("x-amz-copy-source", "photos/globex/a");
    let line = logged(&world.gateway, &copy, "refused", Some("authorize"));
    assert_eq!(line["source"], "photos/globex/a");

    let delete = |keys: &[&str]| {
        let objects = keys
            .iter()
            .map(|key| format!("<Object><Key>{key}</Key></Object>"));
        let body = format!("<Delete>{}</Delete>", objects.collect::<String>());
        ok(&world.signed("POST", "/photos?delete").body(body))
    };
    assert_eq!(delete(&["acme/a", "globex/a", "globex/b"])["denied"], 2);
    assert!(delete(&["acme/b"])["denied"].is_null());
}

#[test]
fn what_was_refused_names_its_step() {
    let world =
        World::with("[tenants.acme.limits]\nobject_size = \"1KiB\"\nconcurrent_requests = 1");
    let refused = |call: &Call, step| logged(&world.gateway, call, "refused", Some(step));
    let signed = |method, target| world.signed(method, target);
    refused(&signed("GET", "/photos/acme/../x"), "parse");
    refused(&signed("GET", "/photos/acme/x?policy"), "parse");
    let forged = signed("GET", "/photos/acme/x").signed_by((ACME.0, "wrong"));
    let line = refused(&forged, "authenticate");
    assert_eq!(
        (&line["tenant"], &line["identity"]),
        (&Value::Null, &Value::Null)
    );
    let line = refused(&signed("GET", "/photos/globex/x"), "authorize");
    assert_eq!(
        (&line["tenant"], &line["key"]),
        (&"acme".into(), &"globex/x".into())
    );
    refused(
        &signed("PUT", "/photos/acme/x").header("x-amz-acl", "public-read"),
        "rewrite",
    );
    refused(
        &signed("PUT", "/photos/acme/x").body(vec![0; 2000]),
        "payload",
    );
    refused(
        &signed("PUT", "/photos/acme/x")
            .body("hello")
            .payload(&"0".repeat(64)),
        "payload",
    );
    let streamed = Call::new(world.gateway.addr, "PUT", "/photos/globex/x").signed_by(GLOBEX);
    refused(
        &streamed.body(vec![7; 3 << 20]).payload(&"0".repeat(64)),
        "payload",
    );
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::Error {
            status: 403,
            code: "AccessDenied".to_owned(),
        }),
        ..Faults::default()
    });
    refused(&signed("GET", "/photos/acme/x"), "upstream");
}

#[test]
fn a_tenant_over_its_limits_is_refused_at_their_step() {
    let world = World::with("[tenants.acme.limits]\nrequests_per_second = 1\nburst = 1");
    logged(
        &world.gateway,
        &world.signed("GET", "/"),
        "answered_here",
        None,
    );
    logged(
        &world.gateway,
        &world.signed("GET", "/"),
        "refused",
        Some("limit"),
    );
}

#[test]
fn what_failed_names_its_step_too() {
    let world = World::new();
    let sts = |fault| world.emulator.faults().change(|faults| faults.sts = fault);
    sts(Some(StsFault::Error("AuthFailure.SignatureFailure".into())));
    logged(
        &world.gateway,
        &world.signed("GET", "/photos/acme/x"),
        "failed",
        Some("credential"),
    );
    sts(None);

    let breaks = act(|peer| {
        peer.head();
    });
    let scripted = Scripted::new(vec![breaks]);
    let get = scripted.signed("GET", "/photos/acme/x");
    let line = logged(&scripted.gateway, &get, "failed", Some("upstream"));
    assert_eq!(line["tries"], 2);

    let cuts = act(|peer| {
        peer.head();
        peer.respond("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let scripted = Scripted::new(vec![cuts]);
    let get = scripted.signed("GET", "/photos/acme/x");
    logged(&scripted.gateway, &get, "failed", Some("upstream"));
}

#[test]
fn a_url_of_version_2_is_distinguished_from_one_of_version_4() {
    let emulator = support::emulator();
    let config = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let config = config.replacen("[server]", "[server]\nallow_sigv2_presign = true", 1);
    let gateway = Gateway::start(&config);
    let request = sigv2::SigV2Request {
        method: "GET",
        bucket: None,
        path: "/photos/acme/x",
        raw_query: "",
        query: &[],
        headers: &HeaderMap::new(),
    };
    let expires = wall_clock().plus(60).unix();
    let query = sigv2::presigned_query(&request, ACME.0, &Secret::new(ACME.1), expires);
    let get = Call::new(gateway.addr, "GET", &format!("/photos/acme/x?{query}"));
    let line = logged(&gateway, &get, "allowed", None);
    assert_eq!(
        (&line["identity"], &line["key_id"]),
        (&"sigv2".into(), &ACME.0.into())
    );
}

#[test]
fn a_head_that_is_no_http_leaves_a_line_too() {
    let world = World::new();
    let reply = support::exchange(world.gateway.addr, "GET", b"GET / HTTP/1.1\nhost: x\n\n");
    let line = line(&world.gateway, reply.header("x-amz-request-id"));
    assert_eq!(
        (&line["verdict"], &line["step"]),
        (&"refused".into(), &"parse".into())
    );
}

#[test]
fn a_client_that_leaves_before_its_response_is_logged_as_failed() {
    let world = World::new();
    let put = world
        .signed("PUT", "/photos/acme/x")
        .payload("UNSIGNED-PAYLOAD");
    let mut client = support::Client::connect(world.gateway.addr);
    client.write(&put.header("content-length", "1000").head());
    client.write(b"some");
    drop(client);
    eventually("a line", || {
        world.gateway.log.text().contains("\"step\":\"payload\"")
    });
}

#[test]
fn cuts_and_escapes_user_agents() {
    let world = World::new();
    let get = |agent: &str, referer: &str| {
        let get = world.signed("GET", "/photos?location").presigned(60);
        logged(
            &world.gateway,
            &get.header("user-agent", agent).header("referer", referer),
            "answered_here",
            None,
        )
    };
    let page = "https://user:CANARY@app.example.com:8443/p?CANARY=1#CANARY";
    let line = get("aws-cli/2 \"quoted\" \\ \u{9b}31m", page);
    assert_eq!(
        (&line["method"], &line["user_agent"], &line["referer_host"]),
        (
            &"GET".into(),
            &"aws-cli/2 \"quoted\" \\ \u{9b}31m".into(),
            &"app.example.com:8443".into()
        )
    );
    let line = get(&"a".repeat(4000), "nonsense");
    let agent = line["user_agent"].as_str().unwrap_or_default();
    assert_eq!((agent.len(), agent.ends_with("a...")), (256, true));
    assert_eq!(line["referer_host"], Value::Null);
    let text = world.gateway.log.text();
    assert!(
        !text.contains("CANARY") && !text.contains('\u{9b}'),
        "{text}"
    );
}

#[test]
fn logs_the_prefix_of_a_listing() {
    let world = World::new();
    let ok = |call: &Call| logged(&world.gateway, call, "allowed", None);
    let line = ok(&world.signed("GET", "/photos?list-type=2&prefix=acme%2Fa%20b"));
    assert_eq!(
        (&line["operation"], &line["prefix"], &line["key"]),
        (&"ListObjectsV2".into(), &"acme/a b".into(), &Value::Null)
    );
    let line = ok(&world.signed("PUT", "/photos/acme/x").body("hello"));
    assert_eq!(line["prefix"], Value::Null);
}

#[test]
fn joins_the_trace_of_the_client() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let serves = act(|peer| {
        let head = peer.head().unwrap_or_default();
        assert!(
            head.starts_with("GET /") && !head.contains("trace"),
            "{head}"
        );
        peer.respond("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    });
    let scripted = Scripted::new(vec![serves]);
    let get = scripted
        .signed("GET", "/photos/acme/x")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("tracestate", "vendor=opaque");
    let line = logged(&scripted.gateway, &get, "allowed", None);
    assert_eq!(line["trace_id"], trace);
    let world = World::new();
    let malformed = world.signed("GET", "/photos?location");
    let malformed = malformed.header("traceparent", &format!("00-{trace}-x-01"));
    let line = logged(&world.gateway, &malformed, "answered_here", None);
    assert_eq!(line["trace_id"], Value::Null);
}

#[test]
fn begins_a_trace_where_there_is_none() {
    let world = World::with("[traces]\nenabled = true");
    let trace = |call: &Call| {
        let line = logged(&world.gateway, call, "answered_here", None);
        line["trace_id"].as_str().unwrap_or_default().to_owned()
    };
    let location = world.signed("GET", "/photos?location");
    let (first, second) = (trace(&location), trace(&location));
    for id in [&first, &second] {
        let is_hex = id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        assert!(id.len() == 32 && is_hex, "{id}");
    }
    assert_ne!(first, second);
    let own = "4bf92f3577b34da6a3ce929d0e0e4736";
    let joined = location.clone();
    let joined = joined.header("traceparent", &format!("00-{own}-00f067aa0ba902b7-00"));
    assert_eq!(trace(&joined), own);
    let malformed = location.header("traceparent", &format!("00-{own}-x-00"));
    assert!(trace(&malformed).len() == 32 && trace(&malformed) != own);
}

#[test]
fn logs_the_version_of_tls() {
    let authority = support::Authority::new("ours");
    let world = authority.serve("");
    for (version, spelt) in [
        (&rustls::version::TLS12, "1.2"),
        (&rustls::version::TLS13, "1.3"),
    ] {
        let tls = support::tls_client(&authority.ca(), None, &[version]);
        let mut client = support::Client::connect_tls(world.gateway.addr, "localhost", tls);
        client.write(&world.signed("GET", "/photos?location").head());
        let reply = client.read_one("GET");
        let line = line(&world.gateway, reply.header("x-amz-request-id"));
        assert_eq!(line["tls"], spelt, "{line}");
    }
    let plain = World::new();
    let line = logged(
        &plain.gateway,
        &plain.signed("GET", "/"),
        "answered_here",
        None,
    );
    assert_eq!(line["tls"], Value::Null);
}

#[test]
fn writes_combined_lines_without_a_query() {
    let world = World::with("[log]\naccess = \"combined\"");
    let get = world.signed("GET", "/photos/acme/a%20b").presigned(60);
    let get = get.header("user-agent", "curl/8 \"x\"");
    assert_eq!(get.send().status, 404);
    world.gateway.log.assert_contains("curl/8");
    let text = world.gateway.log.text();
    assert!(text.starts_with("127.0.0.1 - acme ["), "{text}");
    let (_, rest) = text.split_once("] ").unwrap_or_default();
    let (request, rest) = rest.split_once(" 404 ").unwrap_or_default();
    assert_eq!(request, "\"GET /photos/acme/a%20b HTTP/1.1\"");
    assert!(rest.ends_with(" \"-\" \"curl/8 \\x22x\\x22\"\n"), "{text}");
}

#[test]
fn reload_changes_the_access_log() {
    let emulator = support::emulator();
    let with = |log: &str| toml(emulator.cos_addr(), emulator.sts_addr(), log);
    let gateway = Gateway::start(&with("[log]\naccess_share = \"0%\""));
    let location = || Call::new(gateway.addr, "GET", "/photos?location").signed_by(ACME);
    let unwritten = location().send();
    logged(
        &gateway,
        &Call::new(gateway.addr, "GET", "/photos?location").signed_by((ACME.0, "wrong")),
        "refused",
        Some("authenticate"),
    );
    assert!(gateway.reload(&with("")).is_ok());
    logged(&gateway, &location(), "answered_here", None);
    let id = unwritten.header("x-amz-request-id").unwrap_or_default();
    assert!(!id.is_empty() && !gateway.log.text().contains(id));
    assert!(
        gateway
            .reload(&with("[log]\naccess_user_agent = false"))
            .is_ok()
    );
    let call = location().header("user-agent", "hidden");
    let line = logged(&gateway, &call, "answered_here", None);
    assert_eq!(line["user_agent"], Value::Null);
}

/// All that holds a secret and can be printed, printed.
#[test]
fn no_secret_is_shown_by_debug() {
    use cosgate::clock::Clock;
    use cosgate::credentials::Credential;
    use cosgate::credentials::sts::{StsCall, StsCaller, StsEndpoint, parse_response};
    use cosgate::payload::ChunkSignatures;
    use cosgate::sign::sigv4::{CredentialScope, SigningKey};
    use cosgate::sign::{cos, tc3};

    let secret = || Secret::new("CANARY-secret");
    let now = wall_clock();
    let scope = CredentialScope {
        date: "20260115",
        region: "ap-guangzhou",
        service: "s3",
    };
    let key = SigningKey::derive(&secret(), scope.date, scope.region, scope.service);
    let chunks = ChunkSignatures::new(key.clone(), &now.amz(), &scope, [0; 32]);
    let credential = Credential::new(
        "AKID".into(),
        secret(),
        Some(Secret::new("CANARY-token")),
        None,
    );
    if let Ok(credential) = &credential {
        credential.sigv4_key(scope.date, scope.region);
        credential.cos_key(now);
    }
    let response = br#"{"Response":{"Credentials":{"Token":"CANARY-token","TmpSecretId":"AKID","TmpSecretKey":"CANARY-secret"},"ExpiredTime":4000000000,"RequestId":"r"}}"#;
    let caller_secret = secret();
    let endpoint = StsEndpoint {
        host: "sts",
        region: "r",
    };
    let caller = StsCaller {
        endpoint,
        secret_id: "AKID",
        secret_key: &caller_secret,
        token: None,
    };
    let minute = std::time::Duration::from_mins(1);
    let call = StsCall::federation_token(&caller, "acme", "{}", minute, now);
    let signature = call
        .headers
        .iter()
        .find_map(|(_, value)| value.rsplit_once("Signature="))
        .map(|(_, signature)| signature.to_owned());
    let world = World::new();
    world.fetch("GET", "/photos?location").assert_ok();
    let shown = [
        format!("{:?}", secret()),
        format!("{key:?} {chunks:?} {scope:?}"),
        format!("{credential:?} {:?}", Clock::new(wall_clock)),
        format!(
            "{:?} {caller:?} {call:?}",
            parse_response(200, response, now)
        ),
        format!(
            "{:?}",
            tc3::ApiSigningKey::derive(&secret(), "2026-01-15", "sts")
        ),
        format!(
            "{:?}",
            cos::SignKey::derive(
                &secret(),
                &cos::KeyTime {
                    start: now,
                    end: now
                }
            )
        ),
        format!("{:?}", world.gateway.shared),
    ];
    let signature = signature.unwrap_or_default();
    assert_eq!(signature.len(), 64);
    for shown in shown {
        for hidden in ["CANARY", &signature, ACME.1, GLOBEX.1, support::ACCOUNT.1] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
