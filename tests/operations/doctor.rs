//! `cosgate doctor` against the embedded COS and STS, and against stores and issuers that are wrong.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::Command;
use std::time::Duration;

use cosgate::emulator::{CommonFault, FaultEntry, FaultLatency, FaultService, Faults, Span};
use serde_json::Value;

use crate::cli::{File, cosgate, file_for, run, stderr, stdout};
use crate::support::{
    ACCOUNT, ACME, BUCKET, GLOBEX, Peer, Script, World, act, emulator, eventually, header_of, toml,
};

/// What `doctor` reports for acme, and its exit status.
fn examine(file: &File, more: &[&str]) -> (Value, Option<i32>) {
    let mut arguments = vec!["doctor", "-c", file.path(), "-t", "acme", "--json"];
    arguments.extend(more);
    let output = run(&arguments);
    let text = stdout(&output);
    for secret in [ACCOUNT.1, ACME.1, GLOBEX.1] {
        assert!(!text.contains(secret) && !stderr(&output).contains(secret));
    }
    let report =
        serde_json::from_str(&text).unwrap_or_else(|_| panic_with(&text, &stderr(&output)));
    (report, output.status.code())
}

#[expect(clippy::panic, reason = "a test stops at the first surprise")]
fn panic_with(out: &str, err: &str) -> ! {
    panic!("{out}\n{err}")
}

/// The findings of this check, as verdict and change.
fn verdicts<'r>(report: &'r Value, check: &str) -> Vec<(&'r str, &'r str)> {
    let all = report["findings"].as_array().unwrap().iter();
    let of_check = all.filter(|finding| finding["check"] == check);
    of_check
        .map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default();
            (text("verdict"), text("change"))
        })
        .collect()
}

/// A user who has seen enough presses Ctrl-C, or a job is ended.
#[test]
fn removes_what_it_wrote_when_a_signal_ends_it() {
    for signal in ["INT", "TERM"] {
        let emulator = emulator();
        let slow = CommonFault::Latency(FaultLatency::Fixed(Span(Duration::from_millis(50))));
        emulator.faults().set(Faults {
            faults: vec![FaultEntry::common(FaultService::Cos, slow)],
            ..Faults::default()
        });
        let file = File::new(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
        let arguments = ["doctor", "-c", file.path(), "-t", "acme", "--json"];
        let doctor = cosgate(&arguments).spawn().unwrap();
        eventually("doctor has written", || {
            !emulator.object_keys(BUCKET).is_empty()
        });
        let pid = doctor.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let output = doctor.wait_with_output().unwrap();
        assert!(output.status.code().is_some(), "{}", stderr(&output));
        assert_eq!(emulator.object_keys(BUCKET), Vec::<String>::new());
        assert_eq!(emulator.uploads(BUCKET), []);
    }
}

#[test]
fn finds_nothing_wrong_with_the_embedded_cos_and_leaves_nothing_behind() {
    for signature in ["s3", "cos"] {
        let world = World::new();
        let emulator = &world.emulator;
        let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
        let text = text.replacen(
            "[upstream]",
            &format!("[upstream]\nsignature = \"{signature}\""),
            1,
        );
        let (report, status) = examine(&File::new(&text), &[]);
        assert_eq!(status, Some(0), "{report:#}");
        let failed = |finding: &&Value| finding["verdict"] == "fail";
        assert_eq!(
            report["findings"]
                .as_array()
                .unwrap()
                .iter()
                .filter(failed)
                .count(),
            0
        );
        for check in [
            "PutObject within the grant",
            "GetObject outside the grant",
            "ListObjects outside the grant",
            "PutObject outside the grant",
            "another action: GetBucketACL",
            "checksum of an upload",
            "an upload that is cut",
            "a part that is cut",
            "pages of a listing by NextMarker",
            "pages of a listing by NextContinuationToken",
            "what doctor wrote",
        ] {
            assert_eq!(
                verdicts(&report, check),
                [("ok", "")],
                "{signature} {check}"
            );
        }
        let folder = report["folders"][0].as_str().unwrap();
        assert!(
            folder.starts_with(&format!("{BUCKET}/acme/.cosgate-doctor-")),
            "{folder}"
        );
        assert_eq!(emulator.uploads(BUCKET), []);
        let listed = world.signed("GET", "/photos?prefix=acme/").send();
        assert!(
            !listed.assert_ok().text().contains("<Key>"),
            "{}",
            listed.text()
        );
    }
}

#[test]
fn writes_nothing_when_it_may_only_read() {
    let emulator = emulator();
    let (report, status) = examine(&file_for(&emulator), &["--read-only"]);
    assert_eq!(
        (status, report["folders"].as_array().unwrap().len()),
        (Some(0), 0)
    );
    let sent = report["findings"].as_array().unwrap().iter();
    let writes = sent.filter(|finding| {
        let sent = finding["sent"].as_str().unwrap();
        ["PUT", "POST", "DELETE"]
            .iter()
            .any(|method| sent.starts_with(method))
    });
    assert_eq!(writes.count(), 0, "{report:#}");
    assert_eq!(
        verdicts(&report, "a key for the probes below")[0].0,
        "skipped"
    );
}

#[test]
fn reports_what_to_change_when_the_bucket_or_the_issuer_is_wrong() {
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let other = text.replacen(
        &format!("bucket = \"{BUCKET}\""),
        "bucket = \"nobodys-1250000000\"",
        1,
    );
    let (report, status) = examine(&File::new(&other), &[]);
    assert_eq!(status, Some(1));
    let [(verdict, change)] = verdicts(&report, "the bucket, its APPID and its region")[..] else {
        panic_with(&report.to_string(), "")
    };
    assert!(
        verdict == "fail" && change.contains("`region` of the grant `photos`"),
        "{change}"
    );

    let other = text.replacen("env:ACCOUNT_SECRET", "env:ACME_SECRET", 1);
    let (report, status) = examine(&File::new(&other), &[]);
    assert_eq!(status, Some(1));
    assert_eq!(
        verdicts(&report, "a temporary key for the tenant")[0].0,
        "fail"
    );

    let away = text.replacen(&emulator.cos_addr().to_string(), "127.0.0.1:1", 1);
    let (report, status) = examine(&File::new(&away), &[]);
    assert_eq!(status, Some(1));
    let network = verdicts(&report, "name, connection, TLS");
    assert_eq!(
        network
            .iter()
            .map(|(verdict, _)| *verdict)
            .collect::<Vec<_>>(),
        ["ok", "fail"]
    );
    assert!(
        network[1].1.contains("`connect_to` in [upstream]"),
        "{network:?}"
    );
}

/// A store that serves whatever it gets: no policy of a key is kept.
fn serve_all(peer: &mut Peer) {
    while let Some(head) = peer.head() {
        let length = header_of(&head, "content-length").and_then(|length| length.parse().ok());
        peer.body(length.unwrap_or(0));
        peer.respond("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

#[test]
fn fails_when_a_key_can_do_more_than_its_grant() {
    let emulator = emulator();
    let store = Script::new(vec![act(serve_all)]);
    let file = File::new(&toml(store.addr, emulator.sts_addr(), ""));
    let (report, status) = examine(&file, &[]);
    assert_eq!(status, Some(1));
    for check in [
        "GetObject outside the grant",
        "ListObjects outside the grant",
        "PutObject outside the grant",
        "another action: GetBucketACL",
        "a key with a wrong token",
        "an upload that is cut",
        "checksum of an upload",
    ] {
        let found = verdicts(&report, check);
        assert!(
            !found.is_empty() && found.iter().all(|(verdict, _)| *verdict == "fail"),
            "{check}"
        );
    }
    let change = verdicts(&report, "checksum of an upload")[0].1;
    assert!(
        change.starts_with("[upstream] stored_check = \"off\""),
        "{change}"
    );
    let removed = store
        .heads()
        .iter()
        .any(|head| head.starts_with("DELETE") && head.contains("-outside/"));
    assert!(removed, "what it could write outside the grant is removed");
}

#[test]
fn refuses_an_unknown_tenant_and_prints_a_table_for_people() {
    let emulator = emulator();
    let file = file_for(&emulator);
    let output = run(&["doctor", "-c", file.path(), "-t", "acmee"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean `acme`?"));
    let output = run(&["doctor", "-c", file.path(), "--read-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let text = stdout(&output);
    for line in [
        "Network\n",
        "  ok      globex: a temporary key for the tenant\n",
        " 0 failed",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// A store that lists other objects than those that were requested, and removes what it is requested to.
fn list_others(peer: &mut Peer) {
    while let Some(head) = peer.head() {
        let length = header_of(&head, "content-length").and_then(|length| length.parse().ok());
        peer.body(length.unwrap_or(0));
        let body = if head.starts_with("GET /?prefix=") {
            "<ListBucketResult><Contents><Key>customer.txt</Key></Contents></ListBucketResult>"
        } else {
            ""
        };
        let crc = "x-cos-hash-crc64ecma: 11051210869376104954\r\n";
        peer.respond(&format!(
            "HTTP/1.1 200 OK\r\n{crc}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
}

#[test]
fn removes_nothing_that_it_has_not_written() {
    let emulator = emulator();
    let store = Script::new(vec![act(list_others)]);
    let file = File::new(&toml(store.addr, emulator.sts_addr(), ""));
    let (report, status) = examine(&file, &[]);
    assert_eq!(status, Some(1));
    let [(verdict, change)] = verdicts(&report, "what doctor wrote")[..] else {
        panic_with(&report.to_string(), "")
    };
    assert!(
        verdict == "fail" && change.contains("do not use this store"),
        "{change}"
    );
    let deleted = |head: &String| head.starts_with("DELETE") && head.contains("customer");
    assert!(!store.heads().iter().any(deleted));
}

/// A store that quotes in its error what it was sent.
fn quote(peer: &mut Peer) {
    while let Some(head) = peer.head() {
        let length = header_of(&head, "content-length").and_then(|length| length.parse().ok());
        peer.body(length.unwrap_or(0));
        let token = header_of(&head, "x-amz-security-token").unwrap_or_default();
        let body =
            format!("<Error><Code>AccessDenied</Code><Message>You sent {token}</Message></Error>");
        peer.respond(&format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
}

#[test]
fn quotes_no_token() {
    let emulator = emulator();
    let store = Script::new(vec![act(quote)]);
    let file = File::new(&toml(store.addr, emulator.sts_addr(), ""));
    let (report, status) = examine(&file, &[]);
    let text = report.to_string();
    let heads = store.heads();
    let tokens = heads
        .iter()
        .filter_map(|head| header_of(head, "x-amz-security-token"));
    let tokens: Vec<_> = tokens.filter(|token| token.len() > 20).collect();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| !text.contains(&token[..20])));
    assert!(
        status == Some(1) && text.contains("[left out: it quotes what was sent]"),
        "{text}"
    );
}

/// Another grant of the tenant covers the keys that are outside this one: its key may touch them.
#[test]
fn judges_a_tenants_key_by_all_its_grants() {
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let more = format!(
        "[[tenants.acme.grants]]\nname = \"other\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\nprefixes = [\".cosgate*\"]\nactions = [\"read\", \"write\", \"list\"]\n\n[tenants.globex]"
    );
    let file = File::new(&text.replacen("[tenants.globex]", &more, 1));
    let (report, status) = examine(&file, &[]);
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(verdicts(&report, "keys outside the grant").len(), 2);
}

/// A store of another maker: its own permanent key, and an MD5 as `ETag`.
#[test]
fn calls_no_sts_for_a_static_issuer_and_compares_what_is_configured() {
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), "127.0.0.1:1".parse().unwrap(), "");
    let text = text
        .replacen("kind = \"federation\"", "kind = \"static\"", 1)
        .replacen("duration = \"30m\"\n", "", 1)
        .replacen("[upstream]", "[upstream]\nstored_check = \"md5\"", 1);
    let (report, status) = examine(&File::new(&text), &[]);
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(verdicts(&report, "name, connection, TLS"), [("ok", "")]);
    assert_eq!(verdicts(&report, "checksum of an upload"), [("ok", "")]);
    assert_eq!(
        verdicts(&report, "nothing outside the grant")[0].0,
        "skipped"
    );
}
