//! Which pages of other origins may use a bucket, in S3's model: the first rule counts that matches the
//! origin, the method and, in a preflight, all requested headers. A request that names no bucket needs a
//! rule of any of the tenant's grants that names the origin.

use std::collections::{HashMap, HashSet};

use http::header::{ORIGIN, REFERER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::{Authenticated, Tenant};
use crate::config::{Config, CorsRule, Wildcard};
use crate::error::{Code, S3Error};

/// What of a request's head decides whether a page may read the response.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// `None`: no browser requests a page of another origin.
    origin: Option<HeaderValue>,
    method: Method,
}

/// What a browser learns of who may read a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CrossOrigin {
    /// There is no rule, and nothing to state.
    #[default]
    NoRule,
    /// No page may read it; to a request of another origin the response may be another.
    Withheld,
    /// Pages of one origin may read it, or all.
    Readable(Readable),
}

/// Who may read a response, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The origin itself, or `*`.
    pub origin: HeaderValue,
    /// The rule names the origin: the page may send what its user is known by.
    pub is_named: bool,
    /// Headers that the page may read besides the usual ones.
    pub expose: Vec<String>,
    /// The rule's number among those that were tried, from 1.
    pub rule: usize,
}

/// A preflight that a rule allows.
#[derive(Debug)]
pub struct AllowedPreflight<'c> {
    /// The rule.
    pub rule: &'c CorsRule,
    /// The rule names the origin.
    pub is_named: bool,
}

/// The rules of all grants, by the name that clients have for the bucket. A preflight names no tenant, and
/// several may have a bucket of one name.
#[derive(Debug)]
pub struct CorsRules {
    /// Each rule once.
    of_buckets: HashMap<String, Vec<CorsRule>>,
    all: Vec<CorsRule>,
}

/// How a rule is about an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// It names it.
    ByName,
    /// It is about every page.
    Any,
}

impl PageRequest {
    /// Reads the request of `head`.
    pub fn read(head: &Parts) -> Self {
        Self {
            origin: only(&head.headers, &ORIGIN).cloned(),
            method: head.method.clone(),
        }
    }

    /// Whether a browser states whose page sent the request.
    pub fn is_of_browser(&self) -> bool {
        self.origin.is_some()
    }

    /// What is known of the response if `rules` are those that count.
    fn judge<'c>(
        &self,
        rules: impl Iterator<Item = &'c CorsRule>,
        bucket: Option<&str>,
    ) -> CrossOrigin {
        let Some(origin) = &self.origin else {
            return CrossOrigin::Withheld;
        };
        let text = origin.to_str().unwrap_or_default();
        let found = first(rules, text, &self.method, &[], bucket.is_none());
        let Some((index, rule, about)) = found else {
            return CrossOrigin::Withheld;
        };
        let is_named = about == About::ByName;
        CrossOrigin::Readable(Readable {
            origin: if is_named {
                origin.clone()
            } else {
                HeaderValue::from_static("*")
            },
            is_named,
            expose: rule.expose.clone(),
            rule: index + 1,
        })
    }
}

impl CorsRules {
    /// The rules of the configuration's grants.
    pub fn new(config: &Config) -> Self {
        let of_tenants = config.tenants.iter().flat_map(|tenant| &tenant.grants);
        let of_templates = config
            .templates
            .iter()
            .flat_map(|template| &template.grants);
        let (mut seen, mut seen_at_all) = (HashSet::new(), HashSet::new());
        let mut rules = Self {
            of_buckets: HashMap::new(),
            all: Vec::new(),
        };
        for grant in of_tenants.chain(of_templates) {
            for rule in &*grant.cors {
                if seen.insert((&grant.name, rule)) {
                    let of_bucket = rules.of_buckets.entry(grant.name.clone());
                    of_bucket.or_default().push(rule.clone());
                }
                if seen_at_all.insert(rule) {
                    rules.all.push(rule.clone());
                }
            }
        }
        rules
    }

    /// Whether no grant has a rule.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The rules that a request for `bucket` may fall under, whoever sends it; all for one that names none.
    fn of(&self, bucket: Option<&str>) -> &[CorsRule] {
        match bucket {
            None => &self.all,
            Some(bucket) => self.of_buckets.get(bucket).map_or(&[], Vec::as_slice),
        }
    }

    /// The rule that allows a preflight for `bucket`. `headers` are lower case.
    pub fn preflight(
        &self,
        bucket: Option<&str>,
        origin: &str,
        method: &Method,
        headers: &[String],
    ) -> Option<AllowedPreflight<'_>> {
        let rules = self.of(bucket).iter();
        let (_, rule, about) = first(rules, origin, method, headers, bucket.is_none())?;
        let is_named = about == About::ByName;
        Some(AllowedPreflight { rule, is_named })
    }

    /// What is known of a response to somebody who is not known yet: the same for each bucket that has no
    /// rule for the page, whether there is such a bucket or not.
    pub fn for_stranger(&self, page: &PageRequest, bucket: Option<&str>) -> CrossOrigin {
        if self.is_empty() {
            return CrossOrigin::NoRule;
        }
        page.judge(self.of(bucket).iter(), bucket)
    }

    /// What is known of a response to `tenant`: its own grant's rules count, and no others.
    pub fn for_tenant(
        &self,
        page: &PageRequest,
        bucket: Option<&str>,
        tenant: &Tenant,
    ) -> CrossOrigin {
        if self.is_empty() {
            return CrossOrigin::NoRule;
        }
        match bucket.map(|bucket| tenant.grant(bucket)) {
            None => page.judge(tenant.cors_rules(), bucket),
            Some(Some(grant)) if grant.cors.is_empty() => CrossOrigin::NoRule,
            Some(Some(grant)) => page.judge(grant.cors.iter(), bucket),
            Some(None) => CrossOrigin::Withheld,
        }
    }
}

impl Tenant {
    /// The rules of all its grants.
    fn cors_rules(&self) -> impl Iterator<Item = &CorsRule> {
        self.grants.iter().flat_map(|grant| &*grant.cors)
    }

    /// Whether the page that made a browser send `head`, for `bucket`, may use what the browser is known by
    /// here. `by_name`: a rule for every page reveals nothing of it.
    pub(super) fn lets_page(&self, head: &Parts, bucket: Option<&str>, by_name: bool) -> bool {
        let origin = origin_of_page(&head.headers).unwrap_or_default();
        let allows = |rules: &mut dyn Iterator<Item = &CorsRule>| {
            first(
                rules,
                origin,
                &head.method,
                &[],
                by_name || bucket.is_none(),
            )
            .is_some()
        };
        match bucket {
            None => allows(&mut self.cors_rules()),
            Some(bucket) => {
                let grant = self.grant(bucket);
                grant.is_some_and(|grant| allows(&mut grant.cors.iter()))
            }
        }
    }
}

impl Authenticated {
    /// Refuses to give keys to a page whose origin no rule of the tenant names.
    pub fn check_page_of_keys(&self, head: &Parts) -> Result<(), S3Error> {
        if !head.headers.contains_key(ORIGIN) || self.tenant().lets_page(head, None, true) {
            return Ok(());
        }
        Err(S3Error::new(
            Code::AccessDenied,
            "Access Denied: no cors rule of the tenant names the origin of this web page, so it gets no keys. Let its \
             own server request them, or ask the operator for a rule with the origin and the method.",
        ))
    }
}

/// The first of `rules` that is about pages of `origin`, `method` and all of `headers`, with its index.
/// `by_name`: rules for every page do not count.
fn first<'c>(
    rules: impl Iterator<Item = &'c CorsRule>,
    origin: &str,
    method: &Method,
    headers: &[String],
    by_name: bool,
) -> Option<(usize, &'c CorsRule, About)> {
    rules.enumerate().find_map(|(index, rule)| {
        let about = about(rule, origin, by_name)?;
        let allows = |header: &String| rule.headers.iter().any(|known| known.matches(header));
        let matches = rule.methods.contains(method) && headers.iter().all(allows);
        matches.then_some((index, rule, about))
    })
}

fn about(rule: &CorsRule, origin: &str, by_name: bool) -> Option<About> {
    let mut named = rule.origins.iter().filter(|known| !known.is_any());
    if is_origin(origin) && named.any(|known| known.matches(origin)) {
        return Some(About::ByName);
    }
    let is_for_all = !by_name && rule.origins.iter().any(Wildcard::is_any);
    is_for_all.then_some(About::Any)
}

/// Whether `text` is an origin that a rule can name: scheme, host, perhaps a port (RFC 6454 section 6.2).
/// `null` is none, and nothing may come in through a `*` that is no part of a host or port.
fn is_origin(text: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && !host.is_empty()
            && scheme.bytes().all(is_of_scheme)
            && host.bytes().all(is_of_host)
    })
}

/// The origin of the page that a browser states is behind a request: its `Origin`, or else the beginning of
/// its `Referer`, which is all that an image or a link has.
fn origin_of_page(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(ORIGIN) {
        return only(headers, &ORIGIN)?.to_str().ok();
    }
    let url = only(headers, &REFERER)?.to_str().ok()?;
    let host = url.find("://")? + "://".len();
    let end = url.get(host..)?.find(['/', '?', '#']);
    url.get(..end.map_or(url.len(), |end| host + end))
}

fn only<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Sources;

    /// The configuration of three tenants with a bucket `photos`; the first has `rules`, the second has
    /// the rule that names `https://b.example`.
    fn config(rules: &str) -> Config {
        let grant = |tenant: &str| {
            format!(
                "[tenants.{tenant}]\nissuer = \"main\"\naccess_keys = [{{ id = \"{tenant}KEY\", secret = \"env:A\" }}]\n\
                 [[tenants.{tenant}.grants]]\nname = \"photos\"\nbucket = \"photos-1\"\nregion = \"ap-guangzhou\"\n\
                 prefixes = [\"{tenant}/*\"]\nactions = [\"read\"]\n"
            )
        };
        let text = format!(
            "[issuers.main]\nkind = \"federation\"\nsecret_id = \"env:A\"\nsecret_key = \"env:A\"\n\
             {}{rules}\n{}[[tenants.two.grants.cors]]\norigins = [\"https://b.example\"]\nmethods = [\"GET\"]\n{}",
            grant("one"),
            grant("two"),
            grant("three"),
        );
        let sources = Sources {
            env: &|name| (name == "A").then(|| "a-secret-of-more-than-32-characters".to_owned()),
            env_names: &Vec::new,
            file: &|_| Err(std::io::ErrorKind::NotFound.into()),
            cores: 1,
            folder: &|_| Ok(Vec::new()),
            now: crate::timestamp::Timestamp::default(),
        };
        let parsed = Config::parse("config.toml", &text, &sources);
        parsed.unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    fn rule(origins: &str, methods: &str, headers: &str) -> String {
        format!(
            "[[tenants.one.grants.cors]]\norigins = [{origins}]\nmethods = [{methods}]\nheaders = [{headers}]\n"
        )
    }

    fn page(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/photos/k");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn tenants(config: &Config) -> Vec<Tenant> {
        let all = config.tenants.iter().enumerate();
        all.map(|(index, tenant)| Tenant::new(index, tenant, None, None))
            .collect()
    }

    #[test]
    fn the_first_rule_that_matches_origin_method_and_all_headers_counts() {
        let rules = [
            rule("\"https://a.example\"", "\"PUT\"", "\"x-a\", \"x-b\""),
            rule("\"https://*.example\"", "\"PUT\", \"GET\"", "\"x-*\""),
            rule("\"*\"", "\"GET\"", ""),
        ];
        let config = config(&rules.concat());
        let rules = CorsRules::new(&config);
        let own = &config.tenants[0].grants[0].cors;
        let found = |origin: &str, method: Method, headers: &[&str]| {
            let headers: Vec<_> = headers.iter().map(ToString::to_string).collect();
            let found = rules.preflight(Some("photos"), origin, &method, &headers);
            found.map(|found| {
                let index = own.iter().position(|rule| rule == found.rule);
                (index, found.is_named)
            })
        };
        let a = "https://a.example";
        assert_eq!(
            found(a, Method::PUT, &["x-a", "x-b"]),
            Some((Some(0), true))
        );
        assert_eq!(
            found(a, Method::PUT, &["x-a", "x-c"]),
            Some((Some(1), true))
        );
        assert_eq!(found(a, Method::PUT, &["y"]), None);
        assert_eq!(found(a, Method::GET, &[]), Some((Some(1), true)));
        assert_eq!(found("null", Method::GET, &[]), Some((Some(2), false)));
        assert_eq!(found("null", Method::GET, &["x-a"]), None);
        assert_eq!(
            found("https://b.example", Method::GET, &[]),
            Some((Some(1), true))
        );
        assert_eq!(found(a, Method::DELETE, &[]), None);
        assert!(
            rules
                .preflight(Some("other"), a, &Method::GET, &[])
                .is_none()
        );
    }

    #[test]
    fn a_caller_is_judged_by_its_own_rules() {
        let config = config(&rule("\"https://a.example\"", "\"GET\"", ""));
        let rules = CorsRules::new(&config);
        let tenants = tenants(&config);
        let judged = |origin: &str, bucket: &str, tenant: usize| {
            let page = PageRequest::read(&page("GET", &[("origin", origin)]));
            match rules.for_tenant(&page, Some(bucket), &tenants[tenant]) {
                CrossOrigin::NoRule => "no rule",
                CrossOrigin::Withheld => "withheld",
                CrossOrigin::Readable(_) => "readable",
            }
        };
        assert_eq!(judged("https://a.example", "photos", 0), "readable");
        assert_eq!(judged("https://b.example", "photos", 0), "withheld");
        assert_eq!(judged("https://b.example", "photos", 1), "readable");
        assert_eq!(judged("https://a.example", "photos", 2), "no rule");
        assert_eq!(judged("https://a.example", "another", 0), "withheld");
    }

    #[test]
    fn what_the_browser_is_known_by_is_for_pages_that_are_named() {
        let rules = [
            rule("\"https://a.example\"", "\"GET\"", ""),
            rule("\"*\"", "\"GET\", \"PUT\"", ""),
        ];
        let tenants = tenants(&config(&rules.concat()));
        let lets = |method: &str, headers: &[(&str, &str)], by_name: bool| {
            tenants[0].lets_page(&page(method, headers), Some("photos"), by_name)
        };
        let a = ("origin", "https://a.example");
        let b = ("origin", "https://b.example");
        assert!(lets("GET", &[a], true));
        assert!(!lets("PUT", &[a], true));
        assert!(lets("PUT", &[a], false));
        assert!(!lets("GET", &[b], true));
        assert!(lets("GET", &[b], false));
        assert!(lets("GET", &[], false));
        assert!(!lets("DELETE", &[b], false));
        // Two origins are none that a rule names, whatever else the browser states.
        let referer = ("referer", "https://a.example/page");
        assert!(!lets("GET", &[a, b, referer], true));
        assert!(!lets("GET", &[b, referer], true));
        assert!(lets("GET", &[referer], true));
        assert!(!tenants[2].lets_page(&page("GET", &[a]), Some("photos"), false));
        // Keys are given to pages that are named, by a rule of any grant.
        assert!(tenants[0].lets_page(&page("GET", &[a]), None, false));
        assert!(!tenants[0].lets_page(&page("GET", &[b]), None, false));
    }

    fn origin() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            "https://[ab.]{1,6}(:[0-9]{1,2})?",
            "[ -~]{0,20}",
        ]
    }

    proptest! {
        /// To an origin that no rule is about, a bucket with rules, one without and none at all look alike.
        #[test]
        fn no_bucket_shows_to_an_origin_without_a_rule(origin in origin(), method in "GET|PUT|POST|HEAD|DELETE") {
            let config = config(&rule("\"https://*.a\"", "\"PUT\"", "\"*\""));
            let rules = CorsRules::new(&config);
            let head = page(&method, &[("origin", &origin)]);
            let page = PageRequest::read(&head);
            let named = origin.strip_prefix("https://").filter(|_| is_origin(&origin));
            let by_one = method == "PUT" && named.is_some_and(|host| host.strip_suffix(".a").is_some());
            let by_two = method == "GET" && named == Some("b.example");
            let judged = rules.for_stranger(&page, Some("photos"));
            prop_assert_eq!(rules.for_stranger(&page, Some("no-such-bucket")), CrossOrigin::Withheld);
            let allowed = rules.preflight(Some("photos"), &origin, &head.method, &[]);
            prop_assert_eq!(allowed.is_some(), by_one || by_two);
            match judged {
                CrossOrigin::Readable(readable) => {
                    prop_assert!(by_one || by_two);
                    prop_assert_eq!(readable.origin.as_bytes(), origin.as_bytes());
                }
                judged => {
                    prop_assert_eq!(judged, CrossOrigin::Withheld);
                    prop_assert!(!by_one && !by_two);
                }
            }
        }

        /// An origin that a rule with a `*` names has nothing in it but a scheme, a host and a port.
        #[test]
        fn a_wildcard_lets_nothing_else_in(rest in "[ -~]{0,12}") {
            let config = config(&rule("\"https://*.a.example\", \"http://localhost:*\"", "\"GET\"", ""));
            let rules = CorsRules::new(&config);
            for origin in [format!("https://{rest}.a.example"), format!("http://localhost:{rest}")] {
                let found = rules.preflight(Some("photos"), &origin, &Method::GET, &[]);
                let strange = rest.bytes().any(|byte| !byte.is_ascii_alphanumeric() && !b".-_:[]".contains(&byte));
                prop_assert!(found.is_none() || !strange, "{}", origin);
            }
        }
    }
}
