//! `cosgate explain`: what it says of a request, to the letter, and what it never says.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// No variable that it names is set. Nothing listens at its addresses.
const CONFIG: &str = r#"
[upstream]
connect_to = "127.0.0.1:1"

[sts]
endpoint = "http://127.0.0.1:1"

[issuers.main]
kind = "federation"
secret_id = "env:EXPLAIN_ID"
secret_key = "env:EXPLAIN_KEY"
duration = "30m"

[issuers.fixed]
kind = "static"
secret_id = "CANARY-id"
secret_key = "CANARY-key"

[tenants.acme]
issuer = "main"
access_keys = [{ id = "ACMEKEY0000000000001", secret = "env:EXPLAIN_SECRET" }]

[[tenants.acme.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["acme/*"]
actions = ["GetObject", "PutObject"]
headers = ["x-amz-server-side-encryption-customer-key"]

[[tenants.acme.grants]]
name = "inbox"
bucket = "inbox-1250000000"
region = "ap-beijing"
prefixes = ["*"]
actions = ["GetObject", "GetBucket"]

[tenants.guest]
issuer = "fixed"
anonymous = true

[[tenants.guest.grants]]
name = "open"
bucket = "open-1250000000"
region = "ap-guangzhou"
prefixes = ["public/*"]
actions = ["read"]
"#;

const PHOTOS: &str = "photos (shared-1250000000 in ap-guangzhou, prefixes acme/*)";

fn explain(config: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cosgate.toml");
    fs::write(&file, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .args(["explain", "--config"])
        .arg(&file)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    for printed in [&output.stdout, &output.stderr] {
        let printed = String::from_utf8_lossy(printed);
        assert!(!printed.contains("CANARY"), "{printed}");
    }
    output
}

#[track_caller]
fn assert_explained(arguments: &[&str], status: i32, expected: &str) {
    let output = explain(CONFIG, arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    let wrong = String::from_utf8(output.stderr).unwrap();
    assert_eq!(printed, expected, "{wrong}");
    assert_eq!(output.status.code(), Some(status), "{wrong}");
}

/// The steps before the grants are checked at.
fn as_acme(parsed: &str) -> String {
    format!(
        "parse         {parsed}\nauthenticate  taken to be the tenant acme; no signature is checked\n"
    )
}

const POLICY: &str = r#"
the policy inside the temporary key
{
  "version": "2.0",
  "statement": [
    {
      "effect": "allow",
      "action": [
        "name/cos:GetBucket"
      ],
      "resource": [
        "qcs::cos:ap-beijing:uid/1250000000:inbox-1250000000/*"
      ]
    },
    {
      "effect": "allow",
      "action": [
        "name/cos:GetObject"
      ],
      "resource": [
        "qcs::cos:ap-beijing:uid/1250000000:inbox-1250000000/*"
      ]
    },
    {
      "effect": "allow",
      "action": [
        "name/cos:GetObject",
        "name/cos:PutObject",
        "name/cos:PutObjectCopy",
        "name/cos:UploadPartCopy"
      ],
      "resource": [
        "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/acme/*"
      ]
    }
  ]
}
"#;

#[test]
fn what_would_be_sent_is_shown_whole_but_for_its_secrets() {
    let arguments = [
        "-t",
        "acme",
        "PUT",
        "http://photos.s3.localhost/acme/a%20b?X-Amz-Signature=CANARY&X-Amz-Security-Token=CANARY",
        "-H",
        "authorization: CANARY",
        "-H",
        "cookie: CANARY",
        "-H",
        "x-amz-server-side-encryption-customer-key: CANARY",
        "-H",
        "content-type: text/plain",
    ];
    let expected = as_acme("PutObject, bucket \"photos\", key \"acme/a b\"")
        + "authorize     granted name/cos:PutObject by "
        + PHOTOS
        + r"
rewrite       the head that COS would get is below
payload       an object, as it comes, as many bytes as its Content-Length declares, checked as it streams; its end is held back until all is well
credential    GetFederationToken by the issuer main, Name acme, for 1800 s, with a policy of 471 bytes
upstream      would get the request
verdict       allowed

to COS, at https://shared-1250000000.cos.ap-guangzhou.myqcloud.com
  PUT /acme/a%20b HTTP/1.1
  host: shared-1250000000.cos.ap-guangzhou.myqcloud.com
  x-amz-server-side-encryption-customer-key: <secret>
  content-type: text/plain
  x-amz-date: <time of signing>
  x-amz-content-sha256: UNSIGNED-PAYLOAD
  x-amz-security-token: <session token>
  authorization: <signature>
" + POLICY;
    assert_explained(&arguments, 0, &expected);
}

#[test]
fn a_copy_names_both_grants_and_a_document_its_making() {
    let arguments = [
        "-t",
        "acme",
        "PUT",
        "/photos/acme/c",
        "-H",
        "x-amz-copy-source: inbox/a/b?versionId=7",
    ];
    let output = explain(CONFIG, &arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("NotImplemented"), "{printed}");
    assert!(printed.contains("signature = \"cos\""), "{printed}");
    let config = CONFIG.replacen("[upstream]", "[upstream]\nsignature = \"cos\"", 1);
    let output = explain(&config, &arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with(&as_acme(
        "CopyObject, bucket \"photos\", key \"acme/c\", from bucket \"inbox\", key \"a/b\""
    )));
    let granted = format!(
        "authorize     granted name/cos:PutObject by {PHOTOS}, and name/cos:GetObject by inbox (inbox-1250000000 in ap-beijing, prefixes *)\n"
    );
    assert!(printed.contains(&granted), "{printed}");
    assert!(
        printed.contains(
            "  x-cos-copy-source: inbox-1250000000.cos.ap-beijing.myqcloud.com/a/b?versionId=7\n"
        ),
        "{printed}"
    );
}

#[test]
fn coss_own_language_is_shown_as_configured() {
    let config = CONFIG.replacen("[upstream]", "[upstream]\nsignature = \"cos\"", 1);
    let output = explain(&config, &["-t", "acme", "GET", "/photos/acme/c"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let head = "  GET /acme/c HTTP/1.1
  host: shared-1250000000.cos.ap-guangzhou.myqcloud.com
  x-cos-security-token: <session token>
  authorization: <signature>
";
    assert!(printed.contains(head), "{printed}");
}

#[test]
fn a_request_in_coss_words_is_read_as_one_in_s3s() {
    let url = "/photos/acme/a?q-sign-algorithm=sha1&q-ak=ACMEKEY0000000000001&q-sign-time=1%3B2\
               &q-key-time=1%3B2&q-header-list=host&q-url-param-list=&q-signature=0";
    let arguments = ["--tenant", "acme", "GET", url];
    let printed = |config: &str, status| {
        let output = explain(config, &arguments);
        assert_eq!(output.status.code(), Some(status));
        String::from_utf8(output.stdout).unwrap()
    };
    let served = printed(CONFIG, 0);
    assert!(served.contains("GET /acme/a HTTP/1.1"), "{served}");
    assert!(!served.contains("q-ak"), "{served}");
    let off = "[server]\nallow_qsign = false\n[upstream]";
    let refused = printed(&CONFIG.replacen("[upstream]", off, 1), 1);
    let step = "authenticate  refused with 400 InvalidRequest: ";
    assert!(refused.contains(step), "{refused}");
}

#[test]
fn what_is_refused_names_the_step_the_reason_and_what_is_granted() {
    let grants = format!(
        "verdict       refused

granted: {PHOTOS}
  name/cos:GetObject
  name/cos:PutObject

granted: inbox (inbox-1250000000 in ap-beijing, prefixes *)
  name/cos:GetBucket
  name/cos:GetObject
"
    );
    assert_explained(
        &["-t", "acme", "GET", "/photos/other/x"],
        1,
        &(as_acme("GetObject, bucket \"photos\", key \"other/x\"")
            + "authorize     refused with 403 AccessDenied: The key is outside the prefixes that are yours in bucket photos.\n"
            + &grants),
    );
    assert_explained(
        &["-t", "acme", "DELETE", "/photos/acme/x"],
        1,
        &(as_acme("DeleteObject, bucket \"photos\", key \"acme/x\"")
            + "authorize     refused with 403 AccessDenied: Your access to bucket photos does not include name/cos:DeleteObject.\n"
            + &grants),
    );
    assert_explained(
        &["-t", "acme", "GET", "/photos/acme/../x"],
        1,
        "parse         refused with 400 InvalidURI: A key may have no segment that is . or .., however encoded.\nverdict       refused\n",
    );
    assert_explained(
        &[
            "-t",
            "acme",
            "PUT",
            "/photos/acme/x",
            "-H",
            "x-amz-acl: public-read",
        ],
        1,
        &(as_acme("PutObject, bucket \"photos\", key \"acme/x\"")
            + "authorize     granted name/cos:PutObject by "
            + PHOTOS
            + "\nrewrite       refused with 403 AccessDenied: The header x-amz-acl needs the action name/cos:PutObjectACL. Remove it, or ask the operator for that action.\nverdict       refused\n"),
    );
}

#[test]
fn what_is_served_here_is_shown() {
    assert_explained(
        &["-t", "acme", "GET", "/inbox?location"],
        0,
        &(as_acme("GetBucketLocation, bucket \"inbox\", location=\"\"")
            + r#"authorize     the tenant's own bucket inbox (inbox-1250000000 in ap-beijing, prefixes *)
verdict       answered_here

the response: status 200
<?xml version="1.0" encoding="UTF-8"?>
<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">ap-guangzhou</LocationConstraint>
"#),
    );
}

#[test]
fn the_anonymous_tenant_is_held_to_its_rules() {
    assert_explained(
        &["--anonymous", "GET", "http://127.0.0.1:9000/open/public/x"],
        0,
        r#"parse         GetObject, bucket "open", key "public/x"
authenticate  anonymous: the tenant guest
authorize     granted name/cos:GetObject by open (open-1250000000 in ap-guangzhou, prefixes public/*)
rewrite       the head that COS would get is below
payload       none
credential    the issuer fixed's own key, which no policy fences
upstream      would get the request
verdict       allowed

to COS, at https://open-1250000000.cos.ap-guangzhou.myqcloud.com
  GET /public/x HTTP/1.1
  host: open-1250000000.cos.ap-guangzhou.myqcloud.com
  x-amz-date: <time of signing>
  x-amz-content-sha256: UNSIGNED-PAYLOAD
  authorization: <signature>
"#,
    );
    let page = [
        "--anonymous",
        "GET",
        "/open/public/x",
        "-H",
        "origin: http://evil.example",
    ];
    let output = explain(CONFIG, &page);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("\nauthenticate  refused with 403 AccessDenied: "),
        "{printed}"
    );
}

#[test]
fn by_a_unix_socket_a_user_is_known_by_their_number() {
    let config = CONFIG
        .replacen(
            "[upstream]",
            "[server]\nlisten = \"unix:/run/s3.sock\"\n[upstream]",
            1,
        )
        .replacen("[tenants.acme]", "[tenants.acme]\nunix_users = [1001]", 1);
    for (caller, path, status, expected) in [
        (
            &["--uid", "1001"][..],
            "/photos/acme/a",
            0,
            "the user 1001: the tenant acme",
        ),
        (
            &["--anonymous"],
            "/open/public/a",
            0,
            "anonymous: the tenant guest",
        ),
        (
            &["--uid", "1002"],
            "/open/public/a",
            1,
            "unsigned requests of this user are not served",
        ),
    ] {
        let printed = explain(&config, &[caller, &["GET", path]].concat());
        let text = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(printed.status.code(), Some(status), "{caller:?}: {text}");
        assert!(text.contains(expected), "{caller:?}: {text}");
    }
    let printed = explain(CONFIG, &["--uid", "1001", "GET", "/"]);
    assert_eq!(printed.status.code(), Some(2));
}

#[test]
fn machines_get_one_json_object() {
    let output = explain(
        CONFIG,
        &["-t", "acme", "GET", "/photos/acme/x", "-f", "json"],
    );
    assert_eq!(output.status.code(), Some(0));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed.pointer("/verdict").unwrap(), "allowed");
    assert_eq!(printed.pointer("/steps/2/step").unwrap(), "authorize");
    assert_eq!(printed.pointer("/upstream/target").unwrap(), "/acme/x");
    assert_eq!(
        printed.pointer("/credential/duration_seconds").unwrap(),
        1800
    );
    assert_eq!(
        printed.pointer("/credential/policy/version").unwrap(),
        "2.0"
    );

    let output = explain(CONFIG, &["-t", "acme", "GET", "/photos/x", "-f", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed.pointer("/verdict").unwrap(), "refused");
    assert_eq!(
        printed.pointer("/steps/2/refused/code").unwrap(),
        "AccessDenied"
    );
    assert_eq!(printed.pointer("/upstream"), None);
}

/// Everybody with a token has a folder.
const TEMPLATE: &str = r#"
[identities.corp]
issuer = "https://login.example.com/"
audience = "cosgate"
jwks = "https://login.example.com/jwks.json"

[templates.web]
issuer = "main"
identity = "corp"

[[templates.web.grants]]
name = "photos"
bucket = "users-1250000000"
region = "ap-guangzhou"
root = "users/{claim.sub}/"
actions = ["read"]
"#;

#[test]
fn a_templates_tenant_is_named_as_in_the_access_log() {
    let config = format!("{CONFIG}{TEMPLATE}");
    let output = explain(&config, &["-t", "web/alice", "GET", "/photos/x"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for part in [
        "taken to be the tenant web/alice;",
        "GET /users/alice/x HTTP/1.1",
        "users-1250000000/users/alice/*",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    for name in ["web", "web/", "web/..", "web/a/b", "web/a*"] {
        let output = explain(&config, &["-t", name, "GET", "/photos/x"]);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains("web/SUBJECT"), "{printed}");
    }
}

#[test]
fn what_cannot_be_explained_ends_with_2() {
    for (arguments, help) in [
        (&["-t", "acne", "GET", "/"][..], "did you mean `acme`?"),
        (&["-t", "acme", "GET", "photos/x"], "/BUCKET/KEY"),
        (&["-t", "acme", "GET", "/photos/x#y"], "%23"),
        (&["-t", "acme", "GET", "/photos/x y"], "percent-encode"),
        (&["-t", "acme", "GET", "/", "-H", "CANARY"], "name: value"),
        (&["GET", "/"], "--anonymous"),
        (&["-t", "acme", "--anonymous", "GET", "/"], "--anonymous"),
    ] {
        let output = explain(CONFIG, arguments);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains(help), "{printed}");
    }
    let broken = CONFIG.replace("[upstream]", "[upstreams]");
    let output = explain(&broken, &["-t", "acme", "GET", "/"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn reports_a_condition_that_is_checked_first() {
    let put = [
        "-t",
        "acme",
        "-H",
        "if-none-match: *",
        "PUT",
        "/photos/acme/x",
    ];
    let printed = |config: &str| {
        let output = explain(config, &put);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (status, refused) = printed(CONFIG);
    assert_eq!(status, Some(1), "{refused}");
    assert!(refused.contains("name/cos:HeadObject"), "{refused}");
    let may_head = CONFIG.replace("\"PutObject\"]", "\"PutObject\", \"HeadObject\"]");
    let (status, checked) = printed(&may_head);
    assert_eq!(status, Some(0), "{checked}");
    assert!(checked.contains("a HEAD comes first"), "{checked}");
    let cos = CONFIG.replacen("[upstream]", "[upstream]\nsignature = \"cos\"", 1);
    let (status, kept) = printed(&cos);
    assert_eq!(status, Some(0), "{kept}");
    assert!(kept.contains("x-cos-forbid-overwrite"), "{kept}");
    assert!(!kept.contains("a HEAD comes first"), "{kept}");
}

#[test]
fn refuses_what_the_proxy_refuses_of_a_body_by_its_head() {
    let crc = "x-amz-checksum-crc32: NhCmhg==";
    for (caller, url, headers, step, code) in [
        (
            &["-t", "acme"][..],
            "/photos/acme/x?x-amz-checksum-crc32=broken",
            &["content-length: 5"][..],
            "payload",
            "InvalidRequest",
        ),
        (
            &["-t", "acme"],
            "/photos/acme/x?x-amz-checksum-crc32=yZRlqg==",
            &["content-length: 5", crc],
            "payload",
            "InvalidRequest",
        ),
        (
            &["-t", "acme"],
            "/photos/acme/x",
            &["x-amz-decoded-content-length: 5368709121"],
            "payload",
            "EntityTooLarge",
        ),
        (
            &["-t", "acme"],
            "/photos/acme/x",
            &["content-length: 5368709121"],
            "parse",
            "EntityTooLarge",
        ),
        (
            &["-t", "acme"],
            "/photos/acme/x",
            &[
                "transfer-encoding: chunked",
                "content-encoding: aws-chunked",
            ],
            "payload",
            "MissingContentLength",
        ),
        (
            &["--anonymous"],
            "/open/public/x",
            &[
                "x-amz-decoded-content-length: 5",
                "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            ],
            "payload",
            "InvalidRequest",
        ),
    ] {
        let config = CONFIG.replace(
            r#"prefixes = ["public/*"]
actions = ["read"]"#,
            r#"prefixes = ["public/*"]
actions = ["read", "PutObject"]"#,
        );
        let headers = headers.iter().flat_map(|header| ["-H", *header]);
        let mut arguments = [caller, &["-f", "json", "PUT", url]].concat();
        arguments.extend(headers);
        let output = explain(&config, &arguments);
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let last = printed.pointer("/steps").unwrap().as_array().unwrap();
        let last = last.last().unwrap();
        let refused = (last.pointer("/step"), last.pointer("/refused/code"));
        assert_eq!(
            refused,
            (Some(&step.into()), Some(&code.into())),
            "{printed}"
        );
        assert_eq!(printed.pointer("/upstream"), None, "{printed}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn reports_how_long_an_object_without_a_length_may_be() {
    let put = [
        "-t",
        "acme",
        "PUT",
        "/photos/acme/x",
        "-H",
        "transfer-encoding: chunked",
    ];
    let spools = "[upstream]\nspool_unknown_length = \"64KiB\"";
    for (config, bytes) in [
        (CONFIG.to_owned(), "0"),
        (CONFIG.replacen("[upstream]", spools, 1), "65536"),
    ] {
        let output = explain(&config, &put);
        let printed = String::from_utf8(output.stdout).unwrap();
        let bound = format!("of more than {bytes} bytes it would be refused with 411");
        assert!(printed.contains(&bound), "{printed}");
    }
}

#[test]
fn does_not_explain_what_a_body_decides() {
    for (arguments, what) in [
        (&["POST", "/photos", "-H", "content-length: 9"][..], "form"),
        (&["POST", "/.cosgate/credentials"], "temporary keys"),
        (
            &[
                "POST",
                "/",
                "-H",
                "content-type: application/x-www-form-urlencoded",
            ],
            "session keys",
        ),
    ] {
        let output = explain(CONFIG, &[&["-t", "acme"], arguments].concat());
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains(what), "{printed}");
    }
}

#[test]
fn the_rule_for_pages_that_counts_is_named() {
    let rules = "[[tenants.guest.grants.cors]]\norigins = [\"https://blog.example\"]\nmethods = [\"GET\"]\n\
        [[tenants.guest.grants.cors]]\norigins = [\"*\"]\nmethods = [\"GET\", \"HEAD\"]\nheaders = [\"range\"]\n";
    let config = format!("{CONFIG}\n{rules}");
    let printed = |arguments: &[&str]| {
        let output = explain(&config, arguments);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let get = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let url = "http://127.0.0.1:9000/open/public/x";
        let (code, text) = printed(&["--anonymous", "GET", url, "-H", &origin]);
        assert_eq!(code, Some(0), "{text}");
        text
    };
    let named =
        "cors          rule 1 matches: pages of https://blog.example may read the response\n";
    assert!(get("https://blog.example").contains(named));
    let any = "cors          rule 2 matches: pages of * may read the response\n";
    assert!(get("https://other.example").contains(any));
    let refused = [
        "--anonymous",
        "PUT",
        "/open/public/x",
        "-H",
        "Origin: https://blog.example",
    ];
    let (code, text) = printed(&refused);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("web pages are refused"), "{text}");
    let acme = [
        "--tenant",
        "acme",
        "GET",
        "/photos/acme/x",
        "-H",
        "Origin: https://blog.example",
    ];
    let (_, text) = printed(&acme);
    assert!(!text.contains("cors "), "the tenant has no rules: {text}");
    let preflight = |method: &str| {
        let method = format!("Access-Control-Request-Method: {method}");
        let headers = ["-H", "Origin: https://other.example", "-H", &method];
        printed(
            &[
                &["--tenant", "guest", "OPTIONS", "/open/public/x"][..],
                &headers,
            ]
            .concat(),
        )
    };
    let (code, text) = preflight("HEAD");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("access-control-allow-origin: *"), "{text}");
    let (code, text) = preflight("PUT");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("403 AccessForbidden"), "{text}");
}

#[test]
fn reports_what_a_session_policy_leaves() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("policy.json");
    let policy = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/acme/t/*"}}"#;
    fs::write(&file, policy).unwrap();
    let explained = |method: &str, key: &str| {
        let policy = file.to_str().unwrap();
        let path = format!("/photos/{key}");
        let arguments = ["-t", "acme", "--session-policy", policy, method, &path];
        let output = explain(CONFIG, &arguments);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (status, printed) = explained("GET", "acme/t/x");
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("shared-1250000000/acme/t/*"), "{printed}");
    assert!(
        printed.contains("narrowed by the session's Policy"),
        "{printed}"
    );
    assert!(!printed.contains("PutObject"), "{printed}");
    for (method, key) in [("GET", "acme/u/x"), ("PUT", "acme/t/x")] {
        let (status, printed) = explained(method, key);
        assert_eq!(status, Some(1), "{printed}");
        assert!(printed.contains("403 AccessDenied"), "{printed}");
    }
    fs::write(&file, policy.replace("GetObject", "GetObjekt")).unwrap();
    assert_eq!(explained("GET", "acme/t/x").0, Some(2));
}
