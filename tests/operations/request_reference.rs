//! The page of every header and parameter says what the code does: by the code's own tables, and over
//! sockets, a request for each row and word.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{RefUnwindSafe, catch_unwind};

use cosgate::config::UpstreamSignature;
use cosgate::error::Code;
use cosgate::s3::conditions::{self, Handling, handling, is_condition};
use cosgate::s3::headers::{self, Disposition, disposition};
use cosgate::s3::query::PRESIGN;
use cosgate::s3::{
    BodyKind, Configuration, Operation, Performer, Query, Resource, Target, XmlRequest,
};
use http::Method;

use crate::support::{ACME, Call, Reply, World, md5_base64};

const PAGE: &str = include_str!("../../docs/request-reference.md");
const HEADERS: &str = "Headers";
const PARAMETERS: &str = "Parameters and sub-resources";

/// The words for what becomes of a part of a request.
const WORDS: [&str; 11] = [
    "served here",
    "checked here",
    "dropped",
    "needs an action",
    "needs a name",
    "passed on",
    "refused 400",
    "refused 403",
    "refused 501",
    "translated",
    "used here",
];

type Words = BTreeSet<&'static str>;
type Rows = BTreeMap<String, Words>;

/// The rows of a table of the page: each name, and the words of its fourth cell.
fn rows_of_page(heading: &str) -> Rows {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let mut rows = Rows::new();
    for line in lines {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let [name, s3, cos, cosgate, source] = cells[..] else {
            panic!("not five cells: {line}")
        };
        assert!(
            [s3, cos, source].iter().all(|cell| !cell.trim().is_empty()),
            "{line}"
        );
        let quoted = cosgate.split('`').skip(1).step_by(2);
        let words = quoted.filter_map(|printed| WORDS.into_iter().find(|word| *word == printed));
        let name = name.trim().trim_matches('`').to_owned();
        let earlier = rows.insert(name.clone(), words.collect());
        assert!(earlier.is_none(), "two rows {name}");
    }
    rows
}

/// A name of a table as a client may write it.
fn example(name: &str) -> String {
    match name {
        "x-amz-checksum-*" => "x-amz-checksum-crc32".to_owned(),
        "x-amz-grant-*" => "x-amz-grant-read".to_owned(),
        "x-amz-object-lock-*" => "x-amz-object-lock-mode".to_owned(),
        "x-amz-copy-source-server-side-encryption-*" => {
            "x-amz-copy-source-server-side-encryption-customer-key".to_owned()
        }
        "x-amz-server-side-encryption-*" => "x-amz-server-side-encryption-customer-key".to_owned(),
        name => name.replace('*', "x"),
    }
}

/// A value that the header may have.
fn good_value(name: &str) -> &'static str {
    match name {
        "content-md5" => "j/LY8ZaDEL+OTKbnxUNYOg==", // of the body of `request`
        "range" | "x-amz-copy-source-range" => "bytes=0-1",
        "x-amz-checksum-algorithm" => "SHA256",
        "x-amz-grant-read" => "id=\"100000000001\"",
        "x-amz-metadata-directive" | "x-amz-tagging-directive" => "COPY",
        "x-amz-tagging" => "year=2024",
        name if name.ends_with("-since") => "Tue, 02 Jan 2024 03:04:05 GMT",
        name if name.contains("if-") => "\"0123456789abcdef0123456789abcdef\"",
        _ => "x",
    }
}

/// What becomes of a header on an operation, by the code's tables.
fn header_word(
    operation: Operation,
    name: &str,
    value: &str,
    signature: UpstreamSignature,
) -> &'static str {
    if is_condition(name) {
        return match handling(operation, name, value.as_bytes(), signature) {
            Handling::Sent => "passed on",
            Handling::ForbidsOverwrite => "translated",
            Handling::CheckedFirst => "checked here",
            Handling::Ignored => "dropped",
            Handling::Refused(_) if name.starts_with("x-amz-copy-source-") => "refused 400",
            Handling::Refused(_) => "refused 501",
        };
    }
    match disposition(operation, name, value.as_bytes()) {
        Ok(Disposition::Drop) => "dropped",
        Ok(Disposition::Read) => "used here",
        Ok(Disposition::Forward) => "passed on",
        Ok(Disposition::NeedsAction(_)) => "needs an action",
        Ok(Disposition::NeedsName) => "needs a name",
        Err(error) if error.code() == Code::AccessDenied => "refused 403",
        Ok(Disposition::Unknown) | Err(_) => "refused 400",
    }
}

const BOTH: [UpstreamSignature; 2] = [UpstreamSignature::S3, UpstreamSignature::Cos];

/// Every header of the code's tables, with an operation, a value and a signature for each word.
fn headers_of_code()
-> BTreeMap<String, BTreeMap<&'static str, (Operation, &'static str, UpstreamSignature)>> {
    let mut names: BTreeMap<String, Vec<&str>> = headers::names().into_iter().collect();
    for (name, value) in conditions::names() {
        names.entry(name.to_owned()).or_default().extend(value);
    }
    let words = |(name, values): (String, Vec<&'static str>)| {
        let written = example(&name);
        let mut words = BTreeMap::new();
        for value in values.into_iter().chain([good_value(&written)]) {
            // A form says in its fields what others say in headers.
            let others = Operation::ALL
                .iter()
                .filter(|one| **one != Operation::PostObject);
            for (operation, signature) in others.flat_map(|one| BOTH.map(|way| (*one, way))) {
                let word = header_word(operation, &written, value, signature);
                words.entry(word).or_insert((operation, value, signature));
            }
        }
        (name, words)
    };
    names.into_iter().map(words).collect()
}

/// How the operation treats a parameter that it takes.
fn taken_word(operation: Operation, name: &str) -> Option<&'static str> {
    let selects = operation.selectors().contains(&name);
    if selects && needs_own_grant(operation) {
        return Some("needs an action");
    }
    match operation.performer() {
        Performer::CosIfGranted(_) | Performer::Cosgate(_)
            if selects || operation.own_parameters().contains(&name) =>
        {
            Some("served here")
        }
        Performer::CosByHead if selects => Some("translated"),
        _ if operation.own_parameters().contains(&name) => Some("served here"),
        Performer::Cosgate(_) => None,
        _ if operation.parameters().contains(&name) => Some("passed on"),
        _ => None,
    }
}

/// Whether no preset has its action, and it is about more than a folder.
fn needs_own_grant(operation: Operation) -> bool {
    matches!(operation.target(), Target::RealKey | Target::WholeBucket)
}

fn resolved(method: &str, scope: Resource, query: &str) -> Result<Operation, Code> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let operation =
        Query::parse(query).and_then(|query| Operation::resolve(&method, scope, &query, false));
    operation.map_err(|error| error.code())
}

const FORMS: [(&str, Resource); 8] = [
    ("GET", Resource::Bucket),
    ("GET", Resource::Object),
    ("PUT", Resource::Bucket),
    ("PUT", Resource::Object),
    ("DELETE", Resource::Bucket),
    ("DELETE", Resource::Object),
    ("POST", Resource::Bucket),
    ("POST", Resource::Object),
];

/// How a word of a parameter can be seen.
#[derive(Clone, Copy)]
enum Shown {
    /// By this operation.
    By(Operation),
    /// By this method on a bucket or object.
    On(&'static str, Resource),
}

/// Every parameter of the code's tables, with a request for each word.
fn parameters_of_code() -> BTreeMap<String, BTreeMap<&'static str, Shown>> {
    let words = |name: String| {
        let written = example(&name);
        let mut words = BTreeMap::new();
        let read = Shown::On("GET", Resource::Object);
        if PRESIGN.contains(&&*name) {
            words.insert("used here", read);
            return (name, words);
        }
        for operation in Operation::ALL {
            if let Some(word) = taken_word(*operation, &name) {
                words.entry(word).or_insert(Shown::By(*operation));
            }
        }
        let is_taken = !words.is_empty();
        for (method, scope) in FORMS {
            let word = match resolved(method, scope, &written) {
                Err(Code::NotImplemented) => "refused 501",
                // Of no other method: no bucket can be deleted, whatever the query says.
                Err(Code::AccessDenied) if !is_taken && method == "GET" => "refused 403",
                _ => continue,
            };
            words.entry(word).or_insert(Shown::On(method, scope));
        }
        if words.is_empty() {
            let word = match resolved("GET", Resource::Object, &format!("{written}=1")) {
                Ok(Operation::GetObject) => "dropped",
                Err(Code::InvalidArgument) => "refused 400",
                other => panic!("{name}: {other:?}"),
            };
            words.insert(word, read);
        }
        (name, words)
    };
    Operation::known_parameters()
        .into_iter()
        .map(words)
        .collect()
}

fn words_alone<T>(code: &BTreeMap<String, BTreeMap<&'static str, T>>) -> Rows {
    let words = |(name, words): (&String, &BTreeMap<&'static str, T>)| {
        (name.clone(), words.keys().copied().collect())
    };
    code.iter().map(words).collect()
}

/// What the page should say, where it says something else.
fn differences(heading: &str, page: &Rows, code: &Rows) -> Vec<String> {
    let mut found = Vec::new();
    for (name, words) in code {
        if page.get(name) != Some(words) {
            found.push(format!("{heading}: `{name}` should say {words:?}"));
        }
    }
    let unknown = page.keys().filter(|name| !code.contains_key(*name));
    found.extend(unknown.map(|name| format!("{heading}: `{name}` is in no table of the code")));
    found
}

#[test]
fn the_request_reference_has_what_the_tables_of_the_code_have() {
    let headers = rows_of_page(HEADERS);
    let headers = headers
        .into_iter()
        .map(|(name, words)| (name.to_lowercase(), words))
        .collect();
    let mut found = differences(HEADERS, &headers, &words_alone(&headers_of_code()));
    let parameters = rows_of_page(PARAMETERS);
    found.extend(differences(
        PARAMETERS,
        &parameters,
        &words_alone(&parameters_of_code()),
    ));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_request_reference_explains_every_word() {
    for word in WORDS {
        let row = format!("\n| `{word}` | ");
        assert_eq!(PAGE.matches(&row).count(), 1, "{word}");
    }
}

/// A natural name: as it is stored, and in a path.
const KEY: &str = "acme/照片 2024/photo-0001 (100%).jpg";
const PATH: &str = "/photos/acme/%E7%85%A7%E7%89%87%202024/photo-0001%20%28100%25%29.jpg";

/// The presets, but for `PutObjectTagging`.
const WITHOUT_TAGGING: &str = r#""read", "list", "AbortMultipartUpload", "CompleteMultipartUpload", "DeleteObject",
    "DeleteObjectTagging", "InitiateMultipartUpload", "ListParts", "PutObject", "UploadPart""#;

/// acme's world, where the object is. `granted`: with the rights and headers that a grant can add.
fn world(signature: UpstreamSignature, granted: Option<&str>) -> World {
    let signature = match signature {
        UpstreamSignature::S3 => "s3",
        UpstreamSignature::Cos => "cos",
    };
    let world = World::edited(|toml| {
        let toml = toml.replacen(
            "[upstream]",
            &format!("[upstream]\nsignature = \"{signature}\""),
            1,
        );
        let rights = match granted {
            None => format!("actions = [{WITHOUT_TAGGING}]"),
            Some(header) => format!(
                "actions = [\"read\", \"write\", \"list\", \"PutObjectACL\"]\nheaders = [\"{header}\"]"
            ),
        };
        toml.replacen("actions = [\"read\", \"write\", \"list\"]", &rights, 1) + &site()
    });
    world.put(PATH, "a photo");
    assert_eq!(world.stored(KEY).as_deref(), Some("a photo"));
    world.emulator.counters().reset();
    world
}

/// The grant of a whole bucket, with every action that needs one.
fn site() -> String {
    let all = Operation::ALL.iter().copied();
    let actions: Vec<&str> = all
        .filter(|operation| needs_own_grant(*operation))
        .map(Operation::action)
        .collect();
    format!(
        "\n[[tenants.acme.grants]]\nname = \"site\"\nbucket = \"site-1250000000\"\nregion = \"ap-guangzhou\"\n\
         prefixes = [\"*\"]\nactions = {actions:?}\n"
    )
}

/// A whole request of the operation, with `more` in its query.
fn request(world: &World, operation: Operation, more: &[(&str, &str)]) -> Call {
    let path = match operation.resource() {
        Resource::Service => "/",
        Resource::Bucket if needs_own_grant(operation) => "/site",
        Resource::Object if needs_own_grant(operation) => "/site/photo-0001.jpg",
        Resource::Bucket => "/photos",
        Resource::Object => PATH,
    };
    let mut query: Vec<(&str, &str)> = more.to_vec();
    let mut add = |name, value| {
        if !query.iter().any(|(known, _)| *known == name) {
            query.push((name, value));
        }
    };
    for name in operation.selectors() {
        add(name, good_parameter(name));
    }
    if operation.parameters().contains(&"prefix") {
        add("prefix", "acme/");
    }
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut call = world.signed(operation.method(), &format!("{path}?{}", query.join("&")));
    if operation.is_copy() {
        call = call.header("x-amz-copy-source", PATH);
    }
    if operation == Operation::GetObjectAttributes {
        call = call.header("x-amz-object-attributes", "ETag");
    }
    let body = match operation.body() {
        BodyKind::None | BodyKind::Ignored | BodyKind::Form => return call,
        BodyKind::Object => "another photo",
        BodyKind::Document(XmlRequest::CompleteMultipartUpload) => {
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>"
        }
        BodyKind::Document(XmlRequest::Delete) => {
            "<Delete><Object><Key>acme/photo-0002.jpg</Key></Object></Delete>"
        }
        BodyKind::Document(XmlRequest::Tagging) => {
            "<Tagging><TagSet><Tag><Key>year</Key><Value>2024</Value></Tag></TagSet></Tagging>"
        }
        BodyKind::Document(XmlRequest::Configuration(kind)) => match kind {
            Configuration::Accelerate => {
                "<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>"
            }
            Configuration::Acl => return call.header("x-amz-acl", "private"),
            Configuration::Cors => {
                "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>"
            }
            Configuration::Encryption => {
                "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
            }
            Configuration::Lifecycle => {
                "<LifecycleConfiguration><Rule><Filter/><Status>Disabled</Status></Rule></LifecycleConfiguration>"
            }
            Configuration::Logging => "<BucketLoggingStatus/>",
            Configuration::ObjectLock => {
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
            }
            Configuration::Replication => "<ReplicationConfiguration/>",
            Configuration::Retention => {
                "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-31T00:00:00Z</RetainUntilDate></Retention>"
            }
            Configuration::Restore => "<RestoreRequest><Days>1</Days></RestoreRequest>",
            Configuration::Tagging => "<Tagging><TagSet/></Tagging>",
            Configuration::Versioning => "<VersioningConfiguration/>",
            Configuration::Website => "<WebsiteConfiguration/>",
        },
    };
    call.body(body)
}

/// Whether a request to COS had this header, in S3's terms or in COS's.
fn reached_cos(world: &World, name: &str) -> bool {
    let in_cos_words = name.replacen("x-amz-", "x-cos-", 1);
    let heads = world.emulator.counters().heads();
    let mut sent = heads.iter().flat_map(|head| &head.headers);
    sent.any(|(sent, _)| *sent == name || *sent == in_cos_words)
}

/// Whether a request to COS had this parameter.
fn was_requested_of_cos(world: &World, name: &str) -> bool {
    let heads = world.emulator.counters().heads();
    heads.iter().any(|head| {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let mut pairs = query.split('&');
        pairs.any(|pair| pair.split('=').next() == Some(name))
    })
}

/// Shows each row, and fails with the names of all that are not as the page says.
fn show_each<T: Copy + RefUnwindSafe>(
    rows: BTreeMap<String, BTreeMap<&'static str, T>>,
    show: impl Fn(&str, &'static str, T) + RefUnwindSafe,
) {
    let mut failed = Vec::new();
    for (name, words) in rows {
        for (word, how) in words {
            if catch_unwind(|| show(&example(&name), word, how)).is_err() {
                failed.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_header_is_treated_as_the_request_reference_has_it() {
    show_each(headers_of_code(), show_header);
}

fn show_header(
    name: &str,
    verdict: &'static str,
    (operation, value, signature): (Operation, &str, UpstreamSignature),
) {
    let what = format!("{name}: {value} on {operation:?}: {verdict}");
    let world = world(signature, None);
    let call = || {
        let mut call = request(&world, operation, &[]);
        // Rights are given by one of them.
        let rival = name.starts_with("x-amz-grant-").then_some("x-amz-acl");
        call.headers
            .retain(|(there, _)| *there != name && Some(&**there) != rival);
        call
    };
    let with = |call: Call| call.header(name, value).send();
    match verdict {
        "used here" => shows_that_it_is_read(&world, name),
        "dropped" => {
            let without = call().send().status;
            assert_eq!(with(call()).status, without, "{what}");
            assert!(!reached_cos(&world, name), "{what}");
        }
        "passed on" => {
            let reply = with(call());
            assert!(reached_cos(&world, name), "{what}: {}", reply.text());
        }
        "translated" => {
            with(call());
            assert!(reached_cos(&world, "x-cos-forbid-overwrite"), "{what}");
            assert!(!reached_cos(&world, name), "{what}");
        }
        "checked here" => {
            with(call());
            let heads = world.emulator.counters().heads();
            assert_eq!(heads.first().unwrap().method, "HEAD", "{what}");
            assert!(!operation.reads_object(), "{what}");
        }
        "needs an action" | "needs a name" => {
            with(call()).assert_error(403, "AccessDenied");
            assert!(!reached_cos(&world, name), "{what}");
            let is_by_name = verdict == "needs a name";
            let named = if is_by_name { name } else { "x-amz-other" };
            let world = self::world(signature, Some(named));
            let reply = with(request(&world, operation, &[]));
            assert!(reached_cos(&world, name), "{what}: {}", reply.text());
        }
        refused => is_refused(&world, &with(call()), refused, &what),
    }
}

fn is_refused(world: &World, reply: &Reply, verdict: &str, what: &str) {
    let status: u16 = verdict
        .strip_prefix("refused ")
        .expect(verdict)
        .parse()
        .unwrap();
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert_eq!(world.upstream_requests(), 0, "{what}");
}

/// A header that cosgate reads: with a wrong value the request is refused.
fn shows_that_it_is_read(world: &World, name: &str) {
    let put = || request(world, Operation::PutObject, &[]);
    let get = || request(world, Operation::GetObject, &[]);
    let nobody = || Call::new(world.gateway.addr, "GET", "/photos?prefix=public/");
    let trailer = || put().payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let wrong = match name {
        "authorization" => nobody().header(name, "AWS4-HMAC-SHA256 wrong"),
        "content-length" | "expect" | "transfer-encoding" | "x-amz-security-token" => {
            get().header(name, "wrong")
        }
        "content-md5" => {
            request(world, Operation::DeleteObjects, &[]).header(name, &md5_base64(b"another"))
        }
        "host" => get().header(name, "a b"),
        "origin" | "referer" => nobody().header(name, "https://other.example/"),
        "sec-fetch-site" => nobody().header(name, "cross-site"),
        "x-amz-checksum-algorithm" => {
            request(world, Operation::CreateMultipartUpload, &[]).header(name, "wrong")
        }
        "x-amz-checksum-crc32" => put().header(name, "AAAAAA=="),
        "x-amz-content-sha256" => put().payload("wrong"),
        "x-amz-copy-source" => put().header(name, "wrong"),
        "x-amz-date" => {
            let call = get();
            let late = call.time.plus(3600);
            call.at(late)
        }
        "x-amz-decoded-content-length" => trailer().header(name, "wrong"),
        "x-amz-trailer" => trailer()
            .header("x-amz-decoded-content-length", "13")
            .header(name, "x-amz-wrong"),
        "x-amz-object-attributes" => {
            let path = format!("{PATH}?attributes");
            world.signed("GET", &path).header(name, "wrong")
        }
        "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner" => {
            request(world, Operation::CopyObject, &[]).header(name, "wrong")
        }
        _ => panic!("{name}: say here which value of it is refused"),
    };
    assert!(nobody().send().status < 300);
    assert!(get().send().status < 300);
    world.emulator.counters().reset();
    let reply = wrong.send();
    assert!(
        (400..500).contains(&reply.status),
        "{name}: {}",
        reply.text()
    );
    assert_eq!(world.stored(KEY).as_deref(), Some("a photo"), "{name}");
}

/// A value that the parameter may have.
fn good_parameter(name: &str) -> &'static str {
    match name {
        "encoding-type" => "url",
        "fetch-owner" => "true",
        "list-type" => "2",
        "prefix" | "key-marker" | "marker" | "start-after" => "acme/",
        "delimiter" => "%2F",
        "max-buckets" | "max-keys" | "max-parts" | "max-uploads" | "part-number-marker"
        | "partNumber" => "1",
        _ => "x",
    }
}

#[test]
fn every_parameter_is_treated_as_the_request_reference_has_it() {
    show_each(parameters_of_code(), show_parameter);
}

fn show_parameter(name: &str, verdict: &'static str, shown: Shown) {
    let world = world(UpstreamSignature::S3, None);
    let call = match shown {
        Shown::By(operation) => {
            let mut pairs = vec![(name, good_parameter(name))];
            if name == "upload-id-marker" {
                pairs.push(("key-marker", "acme/")); // alone it is ignored, as by S3
            }
            request(&world, operation, &pairs)
        }
        Shown::On(method, scope) => {
            let path = if scope == Resource::Bucket {
                "/photos"
            } else {
                PATH
            };
            world.signed(method, &format!("{path}?{name}=1"))
        }
    };
    let what = format!("{name}: {} {}: {verdict}", call.method, call.target);
    if verdict == "used here" {
        return shows_that_it_is_signed(&world, name);
    }
    let reply = call.send();
    let printed = format!("{what}: {} {}", reply.status, reply.text());
    let is_requested = was_requested_of_cos(&world, name);
    match verdict {
        "passed on" => assert!(is_requested, "{printed}"),
        "translated" => {
            let heads = world.emulator.counters().heads();
            assert!(heads.iter().any(|head| head.method == "HEAD"), "{printed}");
            assert!(!is_requested && reply.status == 200, "{printed}");
        }
        "served here" => {
            assert!(!is_requested, "{printed}");
            assert!([200, 206, 404, 409].contains(&reply.status), "{printed}");
            let Shown::By(operation) = shown else {
                panic!("{printed}")
            };
            let is_local = matches!(operation.performer(), Performer::Cosgate(_));
            assert!(!is_local || world.upstream_requests() == 0, "{printed}");
        }
        "needs an action" => {
            assert!(is_requested, "{printed}");
            let Shown::By(operation) = shown else {
                panic!("{printed}")
            };
            let path = match operation.resource() {
                Resource::Object => PATH,
                _ => "/photos",
            };
            let world = self::world(UpstreamSignature::S3, None);
            let target = format!("{path}?{name}");
            let refused = world.signed(operation.method(), &target).send();
            let how = match operation {
                Operation::PutObjectAcl => "refused 501",
                _ => "refused 403",
            };
            is_refused(&world, &refused, how, &what);
        }
        "dropped" => assert!(!is_requested && reply.status == 200, "{printed}"),
        refused => is_refused(&world, &reply, refused, &what),
    }
}

/// A parameter of a presigned URL: with another value the URL is worth nothing.
fn shows_that_it_is_signed(world: &World, name: &str) {
    let good = Call::new(world.gateway.addr, "GET", PATH)
        .signed_by(ACME)
        .presigned(300);
    assert_eq!(good.send().status, 200);
    let mut wrong = good.clone();
    let is_second_version = !name.starts_with("X-Amz-");
    wrong.target = match good.target.split_once(&format!("{name}=")) {
        _ if is_second_version => {
            format!("{PATH}?AWSAccessKeyId={}&Expires=1&Signature=wrong", ACME.0)
        }
        Some((front, rest)) => {
            let end = rest.find('&').map_or("", |at| &rest[at..]);
            format!("{front}{name}=wrong{end}")
        }
        None => format!("{}&{name}=wrong", good.target),
    };
    let reply = wrong.send();
    assert!(
        matches!(reply.status, 400 | 403),
        "{name}: {}",
        reply.text()
    );
}
