//! The query, parsed once.

use std::borrow::Cow;

use super::Operation;
use super::address::is_refused_in_keys;
use super::hoisted::is_hoisted;
use super::percent::{self, Plus};
use crate::error::{Code, S3Error};

/// The most parameters that a query may have.
pub const MAX_PARAMETERS: usize = 100;

/// The maximum of entries that one listing may request; more is cut to this, as S3 and COS do.
pub(crate) const MAX_LISTED: u32 = 1000;

/// The highest part number (S3's and COS's limit).
pub(crate) const MAX_PART_NUMBER: u16 = 10_000;

/// What a presigned URL carries (the first three in Signature Version 2), for the tenant's authentication to read. Never forwarded.
pub const PRESIGN: &[&str] = &[
    "AWSAccessKeyId",
    "Expires",
    "Signature",
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// Decoded pairs in the client's order, each name once. A parameter without `=` has an empty value.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses what stands after the `?`. A name may occur once, and one that is known only in its own
    /// letter case, so that no two readers can disagree about its value.
    pub fn parse(raw: &'a str) -> Result<Self, S3Error> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(invalid(format!(
                    "The query has more than {MAX_PARAMETERS} parameters."
                )));
            }
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name = percent::decode(name, Plus::Space)?;
            let value = percent::decode(value, Plus::Space)?;
            check_name(&name)?;
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(format!(
                    "The query parameter {} is given twice.",
                    shown(&name)
                )));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The query of one version of an object; of the latest for `None`.
    pub(super) fn of_version(id: Option<Cow<'a, str>>) -> Self {
        let pair = |id| (Cow::Borrowed("versionId"), id);
        Self(id.map(pair).into_iter().collect())
    }

    /// The query of the version that this one names.
    pub(super) fn version_alone(&self) -> Self {
        let id = self.0.iter().find(|(name, _)| name == "versionId");
        Self::of_version(id.map(|(_, id)| id.clone()))
    }

    /// Every pair, decoded, in the client's order.
    pub fn pairs(&self) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.0
    }

    /// Every pair, decoded, in the client's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of `name`; empty where it has none, unless that is as good as no parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .filter(|value| !(value.is_empty() && is_optional(name)))
    }

    /// The names that say what is requested: all but a presigned URL's and those that SDKs add for
    /// themselves.
    pub(super) fn asking(&self) -> impl Iterator<Item = &str> {
        let is_presigned = self.is_presigned();
        self.iter().map(|(name, _)| name).filter(move |name| {
            let is_header = is_presigned && is_hoisted(name);
            !(PRESIGN.contains(name) || is_dropped(name) || is_header)
        })
    }

    /// The headers that stand in the query of a presigned URL.
    pub(super) fn hoisted(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_presigned = self.is_presigned();
        self.iter()
            .filter(move |(name, _)| is_presigned && is_hoisted(name))
    }

    /// Whether the query carries an AWS signature that covers all of it. One of version 2 does not.
    fn is_presigned(&self) -> bool {
        self.iter().any(|(name, _)| name == "X-Amz-Signature")
    }

    /// Refuses control characters, in any name and value. Some readers end a text at one, or take what
    /// follows for another header (`response-*` come back as headers), and COS's words for a request
    /// are signed line by line. What names keys can have those that keys can have.
    pub(super) fn check_characters(&self) -> Result<(), S3Error> {
        let mut pairs = self.iter();
        let is_refused = |(name, value): &(&str, &str)| {
            let is_of_keys = matches!(*name, "key-marker" | "marker" | "prefix" | "start-after");
            has_control(name)
                || if is_of_keys {
                    value.bytes().any(is_refused_in_keys)
                } else {
                    has_control(value)
                }
        };
        match pairs.find(is_refused) {
            None => Ok(()),
            Some((name, _)) => Err(invalid(format!(
                "The query parameter {} holds a control character. Remove it.",
                shown(name)
            ))),
        }
    }

    /// Refuses values that `operation` cannot have.
    pub(super) fn check_values(&self, operation: Operation) -> Result<(), S3Error> {
        // A script whose variable is empty would change or delete the present version.
        let is_empty = |(name, value): (&str, &str)| name == "versionId" && value.is_empty();
        let writes = !matches!(operation.method(), "GET" | "HEAD");
        if writes && operation.parameters().contains(&"versionId") && self.iter().any(is_empty) {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "Version id cannot be the empty string",
            ));
        }
        for &name in operation.parameters() {
            if let Some(value) = self.get(name) {
                check_value(name, value)?;
            }
        }
        for &name in operation.own_parameters() {
            if let Some(value) = self.get(name).filter(|value| !value.is_empty()) {
                check_value(name, value)?;
            }
        }
        Ok(())
    }

    /// What COS gets: `operation`'s own parameters and nothing else, the sub-resource first (COS
    /// routes on the first one), in a fixed order whatever the client's was.
    pub(super) fn upstream(&self, operation: Operation) -> Vec<(&'static str, &str)> {
        let parameters = operation.parameters().iter();
        parameters
            .filter_map(|&name| Some((name, upstream_value(name, self.get(name)?))))
            .collect()
    }
}

/// Whether a text has one of ASCII's control characters.
pub(super) fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control())
}

/// Whether an empty value has no meaning: SDKs write parameters that are not set so. Not those that choose
/// the operation, without which a part would become an object.
fn is_optional(name: &str) -> bool {
    name.starts_with("response-")
        || matches!(
            name,
            "continuation-token"
                | "encoding-type"
                | "fetch-owner"
                | "max-keys"
                | "max-parts"
                | "max-uploads"
                | "part-number-marker"
                | "versionId"
        )
}

/// `name` as a reader might take it that is less strict: decoded once more, and again, without spaces
/// and without what follows a `/`, `|`, `!` or `[`.
pub(super) fn plain_name(name: &str) -> Cow<'_, str> {
    /// A name that is encoded more often is nobody's mistake.
    const TIMES: usize = 3;
    let mut plain = Cow::Borrowed(name);
    for _ in 0..TIMES {
        match percent::decode(&plain, Plus::Space) {
            Ok(decoded) if decoded != plain => plain = Cow::Owned(decoded.into_owned()),
            _ => break,
        }
    }
    let end = plain.find(['/', '|', '!', '[']).unwrap_or(plain.len());
    let front = plain.get(..end).unwrap_or_default().trim();
    if front.len() == name.len() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(front.to_owned())
}

/// What SDKs add for themselves: it changes nothing that is requested. The checksums are headers that some
/// SDKs move into presigned URLs; COS has none of those sums. One that ends in `*` stands for all that
/// begin so.
pub(super) const DROPPED: &[&str] = &[
    "x-amz-checksum-*",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-user-agent",
    "x-id",
];

/// Whether `name` is one of these, in either letter case.
pub(super) fn is_dropped(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    DROPPED.iter().any(|known| match known.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => name == *known,
    })
}

fn check_name(name: &str) -> Result<(), S3Error> {
    if name.is_empty() {
        return Err(invalid("The query holds a parameter without a name."));
    }
    let plain = plain_name(name);
    let known = Operation::ALL
        .iter()
        .flat_map(|operation| operation.parameters())
        .chain(PRESIGN);
    let other_case = known
        .copied()
        .find(|known| known.eq_ignore_ascii_case(&plain) && *known != name);
    match other_case {
        Some(known) => Err(invalid(format!(
            "The query parameter {} must be written {known}.",
            shown(name)
        ))),
        None => Ok(()),
    }
}

fn check_value(name: &str, value: &str) -> Result<(), S3Error> {
    let (good, wanted) = match name {
        "encoding-type" => (value == "url", "url"),
        "fetch-owner" => (matches!(value, "true" | "false"), "true or false"),
        "list-type" => (value == "2", "2"),
        "max-keys" | "max-parts" | "max-uploads" | "part-number-marker" => {
            (number(value).is_some(), "a whole number, 0 to 2147483647")
        }
        "partNumber" => (
            number(value).is_some_and(|number| (1..=u32::from(MAX_PART_NUMBER)).contains(&number)),
            "a whole number, 1 to 10000",
        ),
        "uploadId" => (!value.is_empty(), "an id, not empty"),
        _ => (true, ""),
    };
    if good {
        Ok(())
    } else {
        Err(invalid(format!(
            "The query parameter {name} must be {wanted}."
        )))
    }
}

/// Whether a parameter names a sub-resource by being there: it has no value.
pub(crate) fn is_sub_resource(name: &str) -> bool {
    matches!(
        name,
        "acl"
            | "cors"
            | "delete"
            | "encryption"
            | "lifecycle"
            | "location"
            | "restore"
            | "tagging"
            | "uploads"
            | "versioning"
            | "versions"
            | "website"
    )
}

fn upstream_value<'v>(name: &str, value: &'v str) -> &'v str {
    match name {
        name if is_sub_resource(name) => "",
        "max-keys" | "max-parts" | "max-uploads"
            if number(value).is_some_and(|n| n > MAX_LISTED) =>
        {
            "1000"
        }
        _ => value,
    }
}

/// Digits alone: no sign, no space; AWS's numbers end at 2³¹ − 1.
fn number(value: &str) -> Option<u32> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value
        .parse()
        .ok()
        .filter(|number| *number <= i32::MAX.unsigned_abs())
}

/// A stranger's name, short enough for a message.
pub(super) fn shown(name: &str) -> String {
    const SHOWN: usize = 64;
    name.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}

fn invalid(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(raw: &str) -> Code {
        Query::parse(raw).unwrap_err().code()
    }

    #[test]
    fn pairs_are_decoded_in_the_clients_order() {
        let query = Query::parse("prefix=a%2Fb+c&uploads&&delimiter=").unwrap();
        assert_eq!(
            query.iter().collect::<Vec<_>>(),
            [("prefix", "a/b c"), ("uploads", ""), ("delimiter", "")]
        );
        assert_eq!(query.get("uploads"), Some(""));
        assert_eq!(query.get("marker"), None);
    }

    #[test]
    fn a_name_given_twice_is_refused_however_it_is_encoded() {
        for raw in [
            "prefix=a&prefix=b",
            "prefix&prefix",
            "%70refix=a&prefix=b",
            "odd=1&odd=1",
        ] {
            assert_eq!(refused(raw), Code::InvalidArgument, "{raw}");
        }
        assert_eq!(
            refused("X-Amz-Signature=a&%58-Amz-Signature=b"),
            Code::InvalidArgument
        );
    }

    #[test]
    fn a_known_name_in_another_case_is_refused() {
        for raw in [
            "Prefix=a",
            "x-amz-signature=a",
            "partnumber=1",
            "UPLOADS",
            "versionid=1",
        ] {
            assert_eq!(refused(raw), Code::InvalidArgument, "{raw}");
        }
    }

    #[test]
    fn bad_encoding_is_refused() {
        for raw in ["prefix=%zz", "prefix=%", "prefix=%ff", "%c0%ae"] {
            assert_eq!(refused(raw), Code::InvalidURI, "{raw}");
        }
        assert_eq!(refused("=x"), Code::InvalidArgument);
    }

    #[test]
    fn control_characters_are_refused_in_every_name_and_value() {
        let check = |raw: &str| Query::parse(raw).unwrap().check_characters();
        for control in (0..0x20).chain([0x7f]) {
            for raw in [
                format!("delimiter=a%{control:02x}b"),
                format!("response-expires=%{control:02X}"),
                format!("x-id=a%{control:02x}"),
                format!("a%{control:02x}=b"),
            ] {
                let error = check(&raw).unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument, "{raw}");
            }
        }
        for control in [0x01, 0x09, 0x17, 0x1c, 0x7f] {
            assert!(check(&format!("prefix=a%{control:02x}")).is_ok());
        }
        for control in [0x00, 0x0a, 0x0d, 0x18, 0x1b] {
            assert!(check(&format!("marker=a%{control:02x}")).is_err());
        }
        assert!(check("prefix=%20%C2%80%7e%E4%B8%AD+&delimiter=%2F").is_ok());
    }

    #[test]
    fn too_many_parameters_are_refused() {
        let many = |count: usize| {
            (0..count)
                .map(|i| format!("p{i}="))
                .collect::<Vec<_>>()
                .join("&")
        };
        assert!(Query::parse(&many(MAX_PARAMETERS)).is_ok());
        assert_eq!(refused(&many(MAX_PARAMETERS + 1)), Code::InvalidArgument);
    }

    #[test]
    fn the_query_for_cos_is_in_a_fixed_order_with_the_sub_resource_first() {
        let query = Query::parse("x-id=L&max-keys=5000&X-Amz-Date=d&prefix=a&list-type=2").unwrap();
        assert_eq!(
            query.upstream(Operation::ListObjectsV2),
            [("list-type", "2"), ("prefix", "a"), ("max-keys", "1000")]
        );
        let query = Query::parse("uploadId=u&partNumber=7").unwrap();
        assert_eq!(
            query.upstream(Operation::UploadPart),
            [("partNumber", "7"), ("uploadId", "u")]
        );
        let query = Query::parse("prefix=a&versions=odd").unwrap();
        assert_eq!(
            query.upstream(Operation::ListObjectVersions),
            [("versions", ""), ("prefix", "a")]
        );
    }

    #[test]
    fn values_that_an_operation_cannot_have_are_refused() {
        let check = |operation, raw| Query::parse(raw).unwrap().check_values(operation);
        for raw in [
            "partNumber=0&uploadId=u",
            "partNumber=10001&uploadId=u",
            "partNumber=%2B1&uploadId=u",
            "partNumber=1&uploadId=",
        ] {
            assert!(check(Operation::UploadPart, raw).is_err(), "{raw}");
        }
        for raw in [
            "list-type=1",
            "list-type=",
            "max-keys=-1",
            "max-keys=9999999999",
            "encoding-type=xml",
            "fetch-owner=1",
        ] {
            assert!(check(Operation::ListObjectsV2, raw).is_err(), "{raw}");
        }
        assert!(
            check(
                Operation::ListObjectsV2,
                "list-type=2&max-keys=0&encoding-type=url"
            )
            .is_ok()
        );
    }

    #[test]
    fn empty_values_of_optional_parameters_are_as_absent() {
        let query = Query::parse(
            "versionId=&max-keys=&fetch-owner=&encoding-type=&continuation-token=&response-expires=&prefix=",
        )
        .unwrap();
        for operation in Operation::ALL {
            let deletes_a_version = !matches!(operation.method(), "GET" | "HEAD")
                && operation.parameters().contains(&"versionId");
            let checked = query.check_values(*operation);
            assert_eq!(checked.is_err(), deletes_a_version, "{operation:?}");
        }
        assert_eq!(query.upstream(Operation::GetObject), []);
        assert_eq!(query.upstream(Operation::ListObjects), [("prefix", "")]);
        assert_eq!(query.get("versionId"), None);
        assert_eq!(query.pairs().len(), 7, "all of them are signed");
        let list = Query::parse("list-type=2&max-keys=&continuation-token=").unwrap();
        assert!(list.check_values(Operation::ListObjectsV2).is_ok());
        assert_eq!(
            list.upstream(Operation::ListObjectsV2),
            [("list-type", "2")]
        );
    }
}
