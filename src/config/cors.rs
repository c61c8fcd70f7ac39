//! `[[tenants.*.grants.cors]]`: which web pages of other origins may use a bucket (S3's `CORSRule`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::file::Located;
use super::grammar;
use super::problem::{Mistake, printable};
use super::section::Section;

/// S3 has so many rules for one bucket at most.
const RULES: usize = 100;
/// The methods that a page may send to a store, as S3 has it.
pub const CORS_METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];
const EXAMPLE: &str = "write scheme, host and port as a browser does, such as \"https://app.example.com\" or \"http://localhost:*\", or \"*\"";

/// A rule: pages of these origins may use these methods and headers, and read the responses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CorsRule {
    /// `origins`
    pub origins: Vec<Wildcard>,
    /// `methods`
    pub methods: Vec<Method>,
    /// `headers`, lower case.
    pub headers: Vec<Wildcard>,
    /// `expose`, lower case: besides those that every page may read.
    pub expose: Vec<String>,
    /// `max_age`
    pub max_age: Duration,
}

/// A text in which one `*` may stand for any text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wildcard {
    /// What stands before the `*`, or all.
    head: String,
    /// What stands after it.
    tail: Option<String>,
}

impl CorsRule {
    /// Whether every page may do more than read.
    pub(super) fn lets_all_write(&self) -> bool {
        let reads = |method: &Method| [Method::GET, Method::HEAD].contains(method);
        self.origins.iter().any(Wildcard::is_any) && !self.methods.iter().all(reads)
    }
}

impl Wildcard {
    /// Reads `text`; `None` if it has two `*`.
    fn read(text: &str) -> Option<Self> {
        let (head, tail) = match text.split_once('*') {
            Some((_, tail)) if tail.contains('*') => return None,
            Some((head, tail)) => (head, Some(tail.to_owned())),
            None => (text, None),
        };
        let head = head.to_owned();
        Some(Self { head, tail })
    }

    /// Whether it is `*` alone.
    pub fn is_any(&self) -> bool {
        self.head.is_empty() && self.tail.as_deref() == Some("")
    }

    /// Whether `text` is one of those that it stands for, byte by byte.
    pub fn matches(&self, text: &str) -> bool {
        match &self.tail {
            None => self.head == text,
            Some(tail) => text
                .strip_prefix(self.head.as_str())
                .is_some_and(|rest| rest.ends_with(tail.as_str())),
        }
    }
}

impl fmt::Display for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head)?;
        match &self.tail {
            Some(tail) => write!(f, "*{tail}"),
            None => Ok(()),
        }
    }
}

/// The rules of a grant, in their order.
pub(super) fn rules(section: &Section<'_>) -> Arc<[CorsRule]> {
    let tables = section.tables("cors");
    if tables.len() > RULES
        && let Some(origin) = section.position_of("cors")
    {
        let message = format!(
            "`cors` has {} rules, and at most {RULES} count",
            tables.len()
        );
        section.error(&origin, message, "write one rule for several origins");
    }
    tables.into_iter().map(rule).collect()
}

fn rule(section: Section<'_>) -> CorsRule {
    let rule = CorsRule {
        origins: texts(&section, "origins", origin),
        methods: texts(&section, "methods", method),
        headers: texts(&section, "headers", header),
        expose: texts(&section, "expose", exposed),
        max_age: section.duration("max_age").value,
    };
    section.refuse_empty("origins", "the rule", "[\"https://app.example.com\"]");
    section.refuse_empty("methods", "the rule", "[\"GET\", \"PUT\"]");
    for Located { value, origin } in section.texts("origins") {
        if let Some(doubt) = doubt(value) {
            section.warning(&origin, doubt.message, doubt.fix);
        }
    }
    section.finish();
    rule
}

fn texts<T>(
    section: &Section<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, Mistake>,
) -> Vec<T> {
    let texts = section.texts(key).into_iter();
    texts
        .filter_map(|text| section.check(key, &text.origin, read(text.value)))
        .collect()
}

/// An origin as a browser writes it (RFC 6454 section 6.2), with one `*` somewhere.
fn origin(text: &str) -> Result<Wildcard, Mistake> {
    let shown = printable(text);
    let wrong = |what: &str, fix: &str| Err(Mistake::new(format!("`{shown}` {what}"), fix));
    let Some(pattern) = Wildcard::read(text) else {
        return wrong("has two `*`", "write one `*` at most, as S3 does");
    };
    if pattern.is_any() {
        return Ok(pattern);
    }
    if text == "null" {
        let fix = "write \"*\" if pages without an origin may read the bucket too";
        return wrong("is the origin of every sandboxed page and file", fix);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("is not an origin: it has no scheme", EXAMPLE);
    };
    let is_of_origin = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]*".contains(&byte);
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.*".contains(&byte);
    if rest.is_empty() || !rest.bytes().all(is_of_origin) || !scheme.bytes().all(is_of_scheme) {
        return wrong(
            "is not an origin: it has more than scheme, host and port",
            EXAMPLE,
        );
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let fix = format!("write \"{}\"", text.to_ascii_lowercase());
        return wrong("never matches: browsers write origins in lower case", &fix);
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return Ok(pattern),
    };
    if let Some(host) = rest.strip_suffix(default_port) {
        let fix = format!("write \"{scheme}://{host}\"");
        return wrong(
            "never matches: browsers leave out the scheme's default port",
            &fix,
        );
    }
    Ok(pattern)
}

/// An origin that is valid and stands for more than it seems to.
fn doubt(text: &str) -> Option<Mistake> {
    let (head, tail) = text.split_once('*')?;
    let (_, host) = head.split_once("://")?;
    let is_port = host.ends_with(':') && tail.is_empty();
    let is_subdomain = host.is_empty() && tail.starts_with('.');
    if is_port || is_subdomain {
        return None;
    }
    let shown = printable(text);
    if host.is_empty() && tail.is_empty() {
        let message =
            format!("`{shown}` is every site, and their users' cookies and certificates count");
        return Some(Mistake::new(message, "name the sites, or write \"*\""));
    }
    let message = format!("`{shown}` is also other people's sites: `*` stands for dots too");
    let fix = "let `*.` begin the host (\"https://*.example.com\"), or let `:*` end it (\"http://localhost:*\")";
    Some(Mistake::new(message, fix))
}

fn method(text: &str) -> Result<Method, Mistake> {
    let known = CORS_METHODS
        .contains(&text)
        .then(|| text.parse().ok())
        .flatten();
    known.ok_or_else(|| grammar::not_one_of(text, &CORS_METHODS))
}

/// A request header's name, with one `*` somewhere.
fn header(text: &str) -> Result<Wildcard, Mistake> {
    let Some(pattern) = Wildcard::read(&text.to_ascii_lowercase()) else {
        let message = format!("`{}` has two `*`", printable(text));
        return Err(Mistake::new(message, "write one `*` at most, as S3 does"));
    };
    if pattern.is_any() {
        return Ok(pattern);
    }
    grammar::header(&text.replacen('*', "", 1))?;
    Ok(pattern)
}

fn exposed(text: &str) -> Result<String, Mistake> {
    if text == "*" {
        let message = "`*` has no meaning here: browsers take it for a name where a user is known";
        let fix = "name the headers; ETag and x-amz-* need none";
        return Err(Mistake::new(message, fix));
    }
    grammar::header(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for text in [
            "*",
            "https://app.example.com",
            "https://app.example.com:8443",
            "https://*.example.com",
            "http://localhost:*",
            "http://[::1]:3000",
            "*://app.example.com",
            "capacitor://localhost",
        ] {
            assert_eq!(origin(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/page",
            "https://a@app.example.com",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://*.*.example.com",
            "**",
            "https://b\u{fc}cher.example",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn doubts_origins_that_are_other_peoples_too() {
        for text in [
            "https://*example.com",
            "https://example.*",
            "http://localhost*",
            "https://*",
        ] {
            assert!(doubt(text).is_some(), "{text}");
        }
        for text in [
            "*",
            "https://*.example.com",
            "http://localhost:*",
            "https://a.example",
            "*://a.example",
        ] {
            assert!(doubt(text).is_none(), "{text}");
        }
    }

    #[test]
    fn headers_have_names_and_one_wildcard() {
        for (text, name) in [
            ("*", "Content-Type"),
            ("Content-Type", "content-type"),
            ("x-amz-*", "X-Amz-Meta-A"),
            ("*-type", "content-type"),
        ] {
            assert!(
                header(text).unwrap().matches(&name.to_ascii_lowercase()),
                "{text}"
            );
        }
        for text in ["", "a b", "x-*-*", "\u{e9}", "a:"] {
            assert!(header(text).is_err(), "{text}");
        }
        assert!(exposed("*").is_err());
        assert!(method("get").is_err() && method("PATCH").is_err() && method("HEAD").is_ok());
    }

    proptest! {
        /// One `*` is any text, and nothing else is.
        #[test]
        fn a_wildcard_stands_for_one_text(head in "[a.:/]{0,4}", tail in "[a.:/]{0,4}", text in "[a.:/]{0,9}") {
            let pattern = Wildcard::read(&format!("{head}*{tail}")).unwrap();
            let fits = text.len() >= head.len() + tail.len() && text.starts_with(&head) && text.ends_with(&tail);
            prop_assert_eq!(pattern.matches(&text), fits);
            let filled = format!("{head}{text}{tail}");
            prop_assert!(pattern.matches(&filled));
            let exact = Wildcard::read(&head).unwrap();
            prop_assert_eq!(exact.matches(&text), head == text);
        }
    }
}
