//! Access to the admin pages: refuses requests with a `Host` that is not the listener's, from pages of other web
//! sites, and without the token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{ALLOW, AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::config::Server;
use crate::observe::admin::{OF_SCRAPERS, error};
use crate::s3::host;
use crate::secret::Secret;

/// Paths for a supervisor of processes, without a token: they show the state alone.
const WITHOUT_TOKEN: [&str; 2] = ["/livez", "/readyz"];
/// A browser shows a dialog for the password. Programs send `Bearer`.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"cosgate admin\", charset=\"UTF-8\"");

/// The refusal of a request that may not see its page.
pub(super) fn refusal<B>(request: &Request<B>, server: &Server) -> Option<Response<String>> {
    let (path, headers) = (request.uri().path(), request.headers());
    if let Some(fault) = host::host_fault(request) {
        return Some(error(StatusCode::BAD_REQUEST, fault));
    }
    if is_misdirected(request, server) {
        return Some(misdirected());
    }
    if is_of_another_site(path, headers) {
        let why = "a page of another site cannot read this";
        return Some(error(StatusCode::FORBIDDEN, why));
    }
    let token = server.admin_token.as_ref()?;
    if WITHOUT_TOKEN.contains(&path) || shows_token(headers, &token.value) {
        return None;
    }
    let why = "this page needs [server] admin_token: send \"Authorization: Bearer TOKEN\", or in a browser any user name and the token as the password";
    let mut response = error(StatusCode::UNAUTHORIZED, why);
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    Some(response)
}

/// The refusal of a request for a change that is no POST, or that a web page has a browser send. The page of
/// cosgate itself requests no change.
pub(super) fn change_refusal<B>(request: &Request<B>) -> Option<Response<String>> {
    let headers = request.headers();
    if *request.method() != Method::POST {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allow);
        return Some(response);
    }
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        let why = "a web page cannot request this: use curl";
        return Some(error(StatusCode::FORBIDDEN, why));
    }
    None
}

/// Whether a request comes under a name that is not the admin listener's.
///
/// On an address that is not loopback, scrapers that are there already use names that nobody has listed: for
/// them names are checked there once `admin_hosts` says which are meant.
fn is_misdirected<B>(request: &Request<B>, server: &Server) -> bool {
    let is_loopback = server
        .admin
        .is_none_or(|admin| admin.ip().to_canonical().is_loopback());
    match &server.admin_hosts {
        Some(names) => host::is_misdirected(request, names),
        None if is_loopback || !OF_SCRAPERS.contains(&request.uri().path()) => {
            host::is_misdirected(request, &[])
        }
        None => false,
    }
}

/// The response to a request under a name that is not the admin listener's (RFC 9110 section 15.5.20).
fn misdirected() -> Response<String> {
    error(
        StatusCode::MISDIRECTED_REQUEST,
        "this Host is not a name of the admin listener: use its address or localhost, or add the name to [server] admin_hosts",
    )
}

/// Whether a browser requests this for a page of another site. A link to the status page may be followed.
fn is_of_another_site(path: &str, headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).map(HeaderValue::as_bytes);
    let is_link = path == "/" && value("sec-fetch-mode") == Some(b"navigate");
    let is_own = |site: &[u8]| [&b"same-origin"[..], b"none"].contains(&site);
    value("sec-fetch-site").is_some_and(|site| !is_own(site)) && !is_link
}

/// Whether the request has `token`, as `Bearer` or as the password of `Basic`. How long that takes reveals nothing
/// of the token but its length.
fn shows_token(headers: &HeaderMap, token: &Secret) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let shown = if scheme.eq_ignore_ascii_case("bearer") {
        Some(rest.trim().to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(rest.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.and_then(|text| Some(text.split_once(':')?.1.to_owned()))
    } else {
        None
    };
    shown.is_some_and(|shown| Secret::new(shown) == *token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::timestamp::Timestamp;

    const TOKEN: &str = "0123456789abcdef";

    fn server(keys: &str) -> Server {
        let sources = Sources {
            env: &|_| None,
            file: &|_| Err(std::io::ErrorKind::NotFound.into()),
            env_names: &Vec::new,
            cores: 1,
            folder: &|_| Ok(Vec::new()),
            now: Timestamp::default(),
        };
        let text = format!(
            "[server]\n{keys}\n[issuers.a]\nkind = \"federation\"\nsecret_id = \"a\"\nsecret_key = \"b\"\n\
             [tenants.a]\nissuer = \"a\"\nanonymous = true\n[[tenants.a.grants]]\nname = \"photos\"\n\
             bucket = \"b-1250000000\"\nregion = \"ap-guangzhou\"\nprefixes = [\"a/*\"]\nactions = [\"read\"]\n"
        );
        Config::parse("", &text, &sources).unwrap().0.server
    }

    /// The status that the request is refused with.
    fn refused(keys: &str, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let refusal = refusal(&request.body(()).unwrap(), &server(keys));
        refusal.map(|response| response.status().as_u16())
    }

    #[test]
    fn a_name_is_listed_or_a_scraper_uses_it_from_elsewhere() {
        let listed = "admin_hosts = [\"Metrics.example\", \"cosgate\"]";
        let remote = "admin = \"0.0.0.0:9001\"";
        let both = format!("{remote}\n{listed}");
        let none = format!("{remote}\nadmin_hosts = []");
        for (keys, path, host, is_shown) in [
            ("", "/metrics", "metrics.example", false),
            ("", "/tenants", "metrics.example", false),
            ("", "/tenants", "localhost:9001", true),
            (listed, "/tenants", "metrics.example:9001", true),
            (listed, "/metrics", "COSGATE", true),
            (listed, "/metrics", "a.metrics.example", false),
            (listed, "/metrics", "localhost", true),
            (remote, "/metrics", "metrics.example", true),
            (remote, "/tenants", "metrics.example", false),
            (remote, "/", "10.1.2.3:9001", true),
            (&both, "/tenants", "metrics.example", true),
            (&both, "/metrics", "evil.example", false),
            (&both, "/metrics", "10.1.2.3:9001", true),
            (&none, "/metrics", "evil.example", false),
            ("admin = \"[::1]:9001\"", "/metrics", "evil.example", false),
        ] {
            let expected = (!is_shown).then_some(421);
            assert_eq!(
                refused(keys, path, &[("host", host)]),
                expected,
                "{keys} {path} {host}"
            );
        }
        let fault = refused("", "/tenants", &[("host", "127.0.0.1:99999999")]);
        assert_eq!(fault, Some(400));
    }

    #[test]
    fn a_page_of_another_site_reads_nothing() {
        let of = |path, site: &str, mode: &str| {
            refused(
                "",
                path,
                &[("sec-fetch-site", site), ("sec-fetch-mode", mode)],
            )
        };
        for path in [
            "/",
            "/tenants",
            "/keys",
            "/config",
            "/status.json",
            "/metrics",
            "/readyz",
        ] {
            for site in ["cross-site", "same-site", "x"] {
                assert_eq!(of(path, site, "cors"), Some(403), "{path} {site}");
                assert_eq!(of(path, site, "no-cors"), Some(403), "{path} {site}");
            }
            assert_eq!(of(path, "same-origin", "cors"), None);
            assert_eq!(of(path, "none", "navigate"), None);
        }
        assert_eq!(of("/", "cross-site", "navigate"), None, "a link");
        assert_eq!(of("/tenants", "cross-site", "navigate"), Some(403));
    }

    #[test]
    fn changes_are_no_web_page_s() {
        let refused = |method: Method, header: Option<(&'static str, &'static str)>| {
            let mut request = Request::builder().method(method);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let refusal = change_refusal(&request.body(()).unwrap());
            refusal.map(|response| response.status().as_u16())
        };
        assert_eq!(refused(Method::POST, None), None);
        assert_eq!(refused(Method::GET, None), Some(405));
        for header in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(refused(Method::POST, Some(header)), Some(403), "{header:?}");
        }
    }

    #[test]
    fn a_page_needs_the_token_where_there_is_one() {
        let keys = format!("admin_token = \"{TOKEN}\"");
        let shown = |path: &str, values: &[&str]| {
            let headers: Vec<_> = values
                .iter()
                .map(|value| ("authorization", *value))
                .collect();
            refused(&keys, path, &headers).is_none()
        };
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let good = [
            format!("Bearer {TOKEN}"),
            format!("bearer {TOKEN}"),
            basic(&format!("admin:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ];
        let bad = [
            String::new(),
            TOKEN.to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {TOKEN}0"),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Token {TOKEN}"),
            basic(TOKEN),
            basic(&format!("{TOKEN}:")),
            basic(&format!("a:b:{TOKEN}")),
            "Basic %%%".to_owned(),
        ];
        for path in [
            "/",
            "/metrics",
            "/reload",
            "/keys/refresh",
            "/status.js",
            "/x",
            "/livez/",
        ] {
            assert!(!shown(path, &[]), "{path}");
            for value in &good {
                assert!(shown(path, &[value]), "{path} {value}");
            }
            for value in &bad {
                assert!(!shown(path, &[value]), "{path} {value}");
            }
            assert!(!shown(path, &[&good[0], &good[0]]), "two of them");
        }
        assert!(shown("/livez", &[]) && shown("/readyz?verbose", &[]));
        assert_eq!(refused("", "/tenants", &[]), None, "no token is configured");
    }
}
