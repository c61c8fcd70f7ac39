//! The wire format: requests, forms, and the names in responses.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use cosgate::clock::wall_clock;
use cosgate::encoding::hex::hex;
use cosgate::encoding::percent::percent_decode;
use cosgate::secret::Secret;
use cosgate::sign::sigv4::SigningKey;
use quick_xml::escape::unescape;

use super::names::{Bucket, Folder, Name, ROOTS, Who};
use super::operations::{Form, Listing};
use crate::support::{BUCKET, Call, element, elements};

/// Parts of names that a response may repeat only if the request contained them.
pub const MARKS: [&str; 5] = [ROOTS, "k3y-alder", "k3y-birch", BUCKET, "1250000000"];
/// The boundary of forms.
pub const BOUNDARY: &str = "b0undary";

impl Listing {
    /// The prefix of the request; empty for none.
    pub fn prefix_of(&self, who: Who) -> String {
        let Some((folder, first)) = self.prefix else {
            return String::new();
        };
        let mut prefix = who.name(Name { folder, leaf: 0 });
        prefix.pop(); // the leaf `a`
        if let Some(leaf) = first {
            let folder = Folder::Bare;
            prefix.extend(who.name(Name { folder, leaf }).chars().next());
        }
        prefix
    }

    /// All parameters except the start of the page, each after a `&`.
    pub fn query(&self, who: Who) -> String {
        let (mut query, max) = match self.form {
            Form::One => (String::new(), "max-keys"),
            Form::Two => ("&list-type=2".to_owned(), "max-keys"),
            Form::Uploads => ("&uploads".to_owned(), "max-uploads"),
            Form::Versions => ("&versions".to_owned(), "max-keys"),
        };
        if self.prefix.is_some() {
            query += &format!("&prefix={}", url(&self.prefix_of(who)));
        }
        if self.delimiter {
            query += "&delimiter=%2F";
        }
        if self.encoded {
            query += "&encoding-type=url";
        }
        if let Some(number) = self.max {
            query += &format!("&{max}={number}");
        }
        query
    }
}

/// The element that names the next page, and the parameter that requests it.
pub struct Marker {
    pub element: &'static str,
    pub parameter: &'static str,
}

pub fn marker(form: Form) -> Marker {
    let (element, parameter) = match form {
        Form::One => ("NextMarker", "marker"),
        Form::Two => ("NextContinuationToken", "continuation-token"),
        Form::Uploads | Form::Versions => ("NextKeyMarker", "key-marker"),
    };
    Marker { element, parameter }
}

/// The entries of a page: names, and sizes or ids. Groups have neither.
pub fn entries(text: &str, form: Form, encoded: bool) -> Vec<(String, String)> {
    let (entry, detail) = match form {
        Form::One | Form::Two => ("Contents", "Size"),
        Form::Uploads => ("Upload", "UploadId"),
        Form::Versions => ("Version", "Size"),
    };
    let name = |text: &str| {
        if encoded {
            decoded(&plain(text))
        } else {
            plain(text)
        }
    };
    let entries = elements(text, entry);
    let mut shown: Vec<_> = entries
        .iter()
        .map(|entry| (name(&element(entry, "Key")), element(entry, detail)))
        .collect();
    for group in elements(text, "CommonPrefixes") {
        shown.push((name(&element(&group, "Prefix")), String::new()));
    }
    shown
}

/// A form for `key` with a policy for the key `signed`.
pub fn form_body(who: Who, bucket: Bucket, signed: &str, key: &str, file: &[u8]) -> Vec<u8> {
    let (id, secret) = who.key();
    let now = wall_clock();
    let scope = format!("{id}/{}/ap-guangzhou/s3/aws4_request", now.date());
    let fields = [
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", &scope),
        ("x-amz-date", &now.amz()),
        ("x-amz-meta-owner", who.body_mark()),
    ];
    let mut conditions = vec![
        serde_json::json!({"bucket": bucket.alias()}),
        serde_json::json!(["eq", "$key", signed]),
    ];
    conditions.extend(fields.map(|(name, value)| serde_json::json!({name: value})));
    let expiration = now.plus(60).iso8601();
    let policy = serde_json::json!({"expiration": expiration, "conditions": conditions});
    let policy = BASE64_STANDARD.encode(policy.to_string());
    let signing = SigningKey::derive(&Secret::new(secret), &now.date(), "ap-guangzhou", "s3");
    let signature = hex(&signing.sign(policy.as_bytes()));
    let mut body = Vec::new();
    let signed = [
        ("key", key),
        ("policy", &policy),
        ("x-amz-signature", &signature),
    ];
    for (name, value) in fields.iter().chain(&signed) {
        body.extend(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .bytes(),
        );
    }
    body.extend(
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n").bytes(),
    );
    body.extend_from_slice(file);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    body
}

pub fn target(bucket: Bucket, key: &str) -> String {
    format!("/{}/{}", bucket.alias(), url(key).replace("%2F", "/"))
}

/// Percent-encodes every byte, slashes too.
pub fn url(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

pub fn decoded(text: &str) -> String {
    String::from_utf8(percent_decode(text).unwrap().into_owned()).unwrap()
}

/// The texts of a request that a response may repeat.
pub fn names_in(call: &Call) -> BTreeSet<String> {
    let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
    let mut headers = call.headers.iter();
    let host = headers.find(|(name, _)| name == "host").unwrap();
    let (bucket, key) = match host.1.strip_suffix(".s3.localhost") {
        Some(bucket) => (bucket, &path[1..]),
        None => path[1..]
            .split_once('/')
            .unwrap_or_else(|| (&path[1..], "")),
    };
    let token = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let body = String::from_utf8_lossy(&call.body);
    let mut texts = vec![bucket.to_owned(), decoded(key)];
    let headers = call.headers.iter();
    let source = headers.filter(|(name, _)| name == "x-amz-copy-source");
    texts.extend(source.map(|(_, source)| decoded(source)));
    for (_, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        texts.push(decoded(value));
        texts.push(String::from_utf8_lossy(&token(value)).into_owned());
    }
    texts.extend(elements(&body, "Key").iter().map(|key| plain(key)));
    if let Some((_, form)) = body.split_once("name=\"key\"\r\n\r\n") {
        texts.push(form.split("\r\n").next().unwrap().to_owned());
    }
    marked(texts)
}

/// The `texts` with a mark, and their folders, also decoded once too often.
pub fn marked(texts: Vec<String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for text in texts {
        let folders = text.match_indices('/').map(|(at, _)| &text[..=at]);
        for name in folders.chain([text.as_str()]) {
            names.extend([name.to_owned(), readable(name)]);
        }
    }
    names.retain(|name| MARKS.iter().any(|mark| name.contains(mark)));
    names
}

/// Removes the escapes of XML and URLs.
pub fn readable(text: &str) -> String {
    let plain = unescape(text).map_or_else(|_| text.to_owned(), String::from);
    let mut pieces = plain.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let code = piece
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        bytes.extend_from_slice(
            piece
                .as_bytes()
                .get(if code.is_some() { 2 } else { 0 }..)
                .unwrap(),
        );
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decodes the text of XML.
pub fn plain(text: &str) -> String {
    unescape(text).unwrap().into_owned()
}
