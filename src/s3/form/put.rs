//! [`FormPut`]: what a form requests, in the words of a PUT of its file.

use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, StatusCode};

use super::fields::{is_header, is_never};
use super::{Form, MAX_FORM_BYTES};
use crate::encoding::percent::push_encoded;
use crate::error::{Code, S3Error};
use crate::s3::checksum_name::ChecksumName;
use crate::s3::headers::strip_aws_chunked;
use crate::s3::query::shown;
use crate::s3::{ObjectKey, xml};

/// The longest URL that is redirected to, before bucket, key and etag are added.
const MAX_REDIRECT: usize = 2048;
const CHECKSUM_ALGORITHM: &str = "x-amz-checksum-algorithm";

/// What a form requests: the parts of a PUT, and the response that its success gets.
#[derive(Clone, Debug)]
pub struct FormPut {
    /// The key.
    pub key: ObjectKey<'static>,
    /// The fields that are headers of a PUT: to be judged as such.
    pub headers: HeaderMap,
    /// The response that is wanted.
    pub success: SuccessAction,
}

/// The response that a success gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuccessAction {
    /// 201 with a document that names the object.
    Document,
    /// This status and no body.
    Empty(StatusCode),
    /// 303 to this URL.
    Redirect(String),
}

impl FormPut {
    /// Reads it from a form for the bucket that the request names `bucket`.
    pub fn read(form: &Form, bucket: &str) -> Result<Self, S3Error> {
        if form.get("bucket").is_some_and(|named| named != bucket) {
            return Err(invalid("The field bucket is not the bucket of the URL."));
        }
        let key = ObjectKey::from_decoded(form.need("key")?.to_owned())?;
        let mut headers = HeaderMap::new();
        for (name, value) in form.fields().filter(|(name, _)| is_header(name)) {
            if is_never(name) {
                return Err(invalid(format!(
                    "The field {name} does not belong to a form."
                )));
            }
            let name = match name {
                // What SDKs call it in a head, where it is checked against the checksum.
                CHECKSUM_ALGORITHM => "x-amz-sdk-checksum-algorithm",
                _ => name,
            };
            insert(&mut headers, name, value)?;
        }
        check_algorithm(form)?;
        if let Some(acl) = form.get("acl") {
            insert(&mut headers, "x-amz-acl", acl)?;
        }
        if let Some(tagging) = form.get("tagging") {
            insert(&mut headers, "x-amz-tagging", &tags_of(tagging)?)?;
        }
        if strip_aws_chunked(&headers)?.1 {
            return Err(invalid(
                "A form's file is never aws-chunked; leave that Content-Encoding out.",
            ));
        }
        Ok(Self {
            key,
            headers,
            success: SuccessAction::read(form)?,
        })
    }
}

impl SuccessAction {
    fn read(form: &Form) -> Result<Self, S3Error> {
        let url = form
            .get("success_action_redirect")
            .or_else(|| form.get("redirect"))
            .filter(|url| !url.is_empty());
        if let Some(url) = url {
            let rest = url
                .strip_prefix("https://")
                .or_else(|| url.strip_prefix("http://"));
            let named =
                rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
            if !named
                || url.len() > MAX_REDIRECT
                || !url.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(invalid(
                    "success_action_redirect must be an http or https URL of at most 2048 visible \
                     ASCII characters.",
                ));
            }
            return Ok(Self::Redirect(url.to_owned()));
        }
        Ok(match form.get("success_action_status") {
            Some("200") => Self::Empty(StatusCode::OK),
            Some("201") => Self::Document,
            _ => Self::Empty(StatusCode::NO_CONTENT),
        })
    }
}

/// `url` with what a redirect after a success adds to its query.
pub(crate) fn redirect_target(url: &str, bucket: &str, key: &str, etag: &str) -> String {
    let (base, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let mut target = String::with_capacity(url.len() + key.len() + 96);
    target.push_str(base);
    let mut separator = match base.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some((_, query)) if query.ends_with('&') => "",
        Some(_) => "&",
    };
    for (name, value) in [("bucket", bucket), ("key", key), ("etag", etag)] {
        target.push_str(separator);
        target.push_str(name);
        target.push('=');
        push_encoded(&mut target, value.as_bytes());
        separator = "&";
    }
    target.push_str(fragment);
    target
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), S3Error> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| invalid(format!("The field {} cannot be a header.", shown(name))))?;
    let value = HeaderValue::from_str(value).map_err(|_| {
        invalid(format!(
            "The field {} has characters that no header can have.",
            shown(name)
        ))
    })?;
    if headers.insert(header, value).is_some() {
        return Err(invalid(format!(
            "The form says {} in two ways.",
            shown(name)
        )));
    }
    Ok(())
}

/// `x-amz-checksum-algorithm` names the algorithm of the checksum that the form has.
fn check_algorithm(form: &Form) -> Result<(), S3Error> {
    let Some(algorithm) = form.get(CHECKSUM_ALGORITHM) else {
        return Ok(());
    };
    let named = format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase());
    let mut sums = form
        .fields()
        .filter_map(|(name, _)| ChecksumName::parse(name));
    if sums.all(|sum| sum.as_str() == named) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::InvalidRequest,
        "x-amz-checksum-algorithm does not name the algorithm of the checksum that the form has.",
    ))
}

/// The field has an XML document where the header has a query.
fn tags_of(document: &str) -> Result<String, S3Error> {
    let tagging = xml::Tagging::parse(document.as_bytes(), MAX_FORM_BYTES)?;
    let mut text = String::new();
    for (key, value) in &tagging.tags {
        if !text.is_empty() {
            text.push('&');
        }
        push_encoded(&mut text, key.as_bytes());
        text.push('=');
        push_encoded(&mut text, value.as_bytes());
    }
    Ok(text)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Form {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Form::new(fields.iter().map(owned).collect(), "f.txt", 0).unwrap()
    }

    fn read(fields: &[(&str, &str)]) -> Result<FormPut, Code> {
        let mut all = vec![("key", "acme/x")];
        all.extend(fields);
        FormPut::read(&form(&all), "photos").map_err(|error| error.code())
    }

    #[test]
    fn fields_become_the_headers_of_a_put() {
        let put = read(&[
            ("content-type", "text/plain"),
            ("acl", "public-read"),
            ("x-amz-meta-from", "${filename}"),
            ("x-amz-storage-class", "STANDARD_IA"),
            ("x-amz-checksum-algorithm", "CRC32"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-cos-acl", "private"),
            ("tagging", "<Tagging><TagSet><Tag><Key>a b</Key><Value>c&amp;</Value></Tag></TagSet></Tagging>"),
            ("x-amz-date", "d"),
            ("x-amz-algorithm", "a"),
            ("x-amz-credential", "c"),
            ("policy", "p"),
            ("x-ignore-this", "i"),
            ("utf8", "✓"),
        ])
        .unwrap();
        let mut headers: Vec<_> = put
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                "content-type: text/plain",
                "x-amz-acl: public-read",
                "x-amz-checksum-crc32: AAAAAA==",
                "x-amz-meta-from: f.txt",
                "x-amz-sdk-checksum-algorithm: CRC32",
                "x-amz-storage-class: STANDARD_IA",
                "x-amz-tagging: a%20b=c%26",
                "x-cos-acl: private",
            ]
        );
        assert_eq!(put.key.as_str(), "acme/x");
        assert_eq!(put.success, SuccessAction::Empty(StatusCode::NO_CONTENT));
    }

    #[test]
    fn what_no_form_can_request_is_refused() {
        for field in [
            ("x-amz-copy-source", "photos/other"),
            ("x-amz-copy-source-if-match", "e"),
            ("x-amz-decoded-content-length", "1"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("content-encoding", "aws-chunked"),
            ("content-type", "a\r\nx-amz-acl: public-read"),
            ("x-amz-meta-a b", "v"),
            ("bucket", "other"),
        ] {
            assert_eq!(
                read(&[field]).unwrap_err(),
                Code::InvalidArgument,
                "{field:?}"
            );
        }
        let both = [("acl", "private"), ("x-amz-acl", "public-read")];
        assert_eq!(read(&both).unwrap_err(), Code::InvalidArgument);
        let sums = [
            ("x-amz-checksum-algorithm", "SHA1"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
        ];
        assert_eq!(read(&sums).unwrap_err(), Code::InvalidRequest);
        assert_eq!(read(&[("tagging", "a=b")]).unwrap_err(), Code::MalformedXML);
        let no_key = FormPut::read(&form(&[("acl", "private")]), "photos").unwrap_err();
        assert_eq!(no_key.code(), Code::InvalidArgument);
        for key in ["", "../x", "a/../../x", "a\u{0}"] {
            assert!(
                FormPut::read(&form(&[("key", key)]), "photos").is_err(),
                "{key}"
            );
        }
    }

    #[test]
    fn a_success_gets_the_response_that_the_form_names() {
        let action = |fields: &[(&str, &str)]| read(fields).map(|put| put.success);
        let status = |status| action(&[("success_action_status", status)]).unwrap();
        assert_eq!(status("200"), SuccessAction::Empty(StatusCode::OK));
        assert_eq!(status("201"), SuccessAction::Document);
        for other in ["204", "202", "301", "", "abc"] {
            assert_eq!(status(other), SuccessAction::Empty(StatusCode::NO_CONTENT));
        }
        let url = "https://app.example/done?x=1#top";
        let redirect = SuccessAction::Redirect(url.into());
        assert_eq!(
            action(&[
                ("success_action_redirect", url),
                ("success_action_status", "201")
            ])
            .unwrap(),
            redirect
        );
        assert_eq!(action(&[("redirect", url)]).unwrap(), redirect);
        for bad in [
            "javascript:alert(1)",
            "/done",
            "http://",
            "https:///x",
            "http://a\r\nSet-Cookie: x",
            "http://a b",
            "ftp://a",
        ] {
            assert_eq!(
                action(&[("success_action_redirect", bad)]),
                Err(Code::InvalidArgument),
                "{bad}"
            );
        }
        let long = format!("http://{}", "a".repeat(MAX_REDIRECT));
        assert_eq!(action(&[("redirect", &long)]), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_redirect_says_what_was_stored() {
        let target = |url| redirect_target(url, "photos", "acme/a b&c", "\"e\"");
        let query = "bucket=photos&key=acme%2Fa%20b%26c&etag=%22e%22";
        assert_eq!(target("http://a/"), format!("http://a/?{query}"));
        assert_eq!(target("http://a/?"), format!("http://a/?{query}"));
        assert_eq!(target("http://a?x=1"), format!("http://a?x=1&{query}"));
        assert_eq!(target("http://a?x=1&"), format!("http://a?x=1&{query}"));
        assert_eq!(target("http://a?x#f?"), format!("http://a?x&{query}#f?"));
    }
}
