//! Names in responses of COS, as the client knows them: the root of its virtual bucket is taken off, and
//! nothing outside its grant has a name.

use std::fmt::Write as _;

use quick_xml::escape::escape;

use crate::encoding::percent::{percent_decode, push_encoded_path};
use crate::tenant::{Grant, Permit};

/// Why a response of COS cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is not what COS returns; the text says how.
    Malformed(&'static str),
    /// It says that there is more, and the client would not learn where.
    NoNextPage,
    /// It names something outside the grant.
    OutOfScope,
}

/// The names in one response.
#[derive(Debug)]
pub(super) struct Names {
    grant: Grant,
    /// Names in the response are percent-encoded. The response's own `<EncodingType>` says so, whatever
    /// was requested: a store may not know `encoding-type`.
    encoded: bool,
    /// A name has been read or written, so that it is too late to learn how they are encoded.
    is_settled: bool,
    key: String,
    key_marker: String,
    marker: String,
    prefix: String,
    start_after: String,
}

/// What COS repeats of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EchoedParameter {
    Key,
    KeyMarker,
    Marker,
    Prefix,
    StartAfter,
}

/// What a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListedName {
    Key,
    /// A common prefix, or where the next page starts: keys that start with it may be seen.
    Prefix,
}

/// A name that the client may see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientName<'t> {
    /// Decoded.
    pub(super) plain: String,
    /// As COS writes it.
    pub(super) written: &'t str,
}

impl Names {
    /// The names in the response to what `permit` allows, not encoded as long as it does not say so.
    pub(super) fn new(permit: &Permit<'_, '_>, grant: &Grant) -> Self {
        let requested = permit.request();
        let parameter = |name| requested.query.get(name).unwrap_or_default().to_owned();
        Self {
            encoded: false,
            is_settled: false,
            key: requested
                .key
                .as_ref()
                .map_or("", |key| key.as_str())
                .to_owned(),
            key_marker: parameter("key-marker"),
            marker: parameter("marker"),
            prefix: parameter("prefix"),
            start_after: parameter("start-after"),
            grant: grant.clone(), // the response outlives the permit
        }
    }

    /// The response says how names in it are encoded. It may not change its mind after the first name.
    pub(super) fn are_encoded(&mut self, encoded: bool) -> Result<(), Unfit> {
        if self.is_settled && self.encoded != encoded {
            let text = "COS's response says after the first name how names are encoded";
            return Err(Unfit::Malformed(text));
        }
        self.encoded = encoded;
        Ok(())
    }

    /// The grant that bounds them.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What the client named itself, as it stands in the response: what COS repeats has the root in it.
    pub(super) fn repeated(&mut self, what: EchoedParameter) -> String {
        self.is_settled = true;
        self.written(match what {
            EchoedParameter::Key => &self.key,
            EchoedParameter::KeyMarker => &self.key_marker,
            EchoedParameter::Marker => &self.marker,
            EchoedParameter::Prefix => &self.prefix,
            EchoedParameter::StartAfter => &self.start_after,
        })
    }

    /// A name of the client's as it stands in the response.
    pub(super) fn written(&self, name: &str) -> String {
        if !self.encoded {
            return escaped(name);
        }
        let mut url = String::with_capacity(name.len());
        push_encoded_path(&mut url, name.as_bytes());
        url
    }

    /// The client's name of what a listing shows, if it may be seen. In an encoded name a `+` is a
    /// space, as stores that write one mean it (S3 does); read so by mistake, it sorts before what it
    /// stands for, so that a page that starts there leaves nothing out.
    pub(super) fn shown<'t>(
        &mut self,
        text: &'t str,
        what: ListedName,
    ) -> Result<ClientName<'t>, Unfit> {
        self.is_settled = true;
        let inside = |name: &String| match what {
            ListedName::Key => self.grant.covers(name),
            ListedName::Prefix => self.grant.covers_list(name),
        };
        if !self.encoded {
            let written = below_root(text, &self.grant).ok_or(Unfit::OutOfScope)?;
            let plain = Some(written.to_owned()).filter(inside);
            let plain = plain.ok_or(Unfit::OutOfScope)?;
            return Ok(ClientName { plain, written });
        }
        let written = below_encoded_root(text, &self.grant.root).ok_or(Unfit::OutOfScope)?;
        let literal = url_decoded(written)?;
        let plain = if written.contains('+') {
            let spaced = url_decoded(&written.replace('+', " "))?;
            [spaced, literal].into_iter().find(inside)
        } else {
            Some(literal).filter(inside)
        };
        let plain = plain.ok_or(Unfit::OutOfScope)?;
        Ok(ClientName { plain, written })
    }
}

/// A name of COS's without the root of the virtual bucket; `None` for one outside it.
pub(super) fn below_root<'t>(name: &'t str, grant: &Grant) -> Option<&'t str> {
    name.strip_prefix(grant.root.as_str())
}

/// The same for a percent-encoded name. Which bytes are encoded is the writer's choice, so each byte
/// of the root is taken in whatever form it has.
fn below_encoded_root<'t>(text: &'t str, root: &str) -> Option<&'t str> {
    let mut rest = text.as_bytes();
    for &wanted in root.as_bytes() {
        let (byte, after) = match rest {
            [b'%', _, _, after @ ..] => {
                let escape = text.get(text.len() - rest.len()..text.len() - after.len())?;
                (*percent_decode(escape)?.first()?, after)
            }
            [b'+', after @ ..] if wanted == b' ' => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        if byte != wanted {
            return None;
        }
        rest = after;
    }
    text.get(text.len() - rest.len()..)
}

/// As text in XML. Control characters are written as references, since readers change or refuse them.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(char::is_control) {
        let control = piece.chars().next_back().filter(|last| last.is_control());
        let plain = piece.strip_suffix(char::is_control).unwrap_or(piece);
        out.push_str(&escape(plain));
        if let Some(control) = control {
            // Writing to a String cannot fail.
            let _ = write!(out, "&#x{:X};", u32::from(control));
        }
    }
    out
}

fn url_decoded(text: &str) -> Result<String, Unfit> {
    percent_decode(text)
        .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok())
        .ok_or(Unfit::Malformed(
            "a key in COS's listing is wrongly encoded",
        ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PrefixPattern;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::Operation;

    fn names(root: &str, prefixes: &[PrefixPattern], query: &str) -> Names {
        let mut tenant = tenant();
        let grant = &mut tenant.grants[0];
        grant.root = root.into();
        grant.prefixes = prefixes.to_vec();
        let requested = s3_request(Operation::ListObjects, "photos", "", query);
        let permit = Permit::for_test(&tenant, requested).unwrap();
        let mut names = Names::new(&permit, permit.grant().unwrap());
        names.encoded = query.contains("encoding-type");
        names
    }

    #[test]
    fn a_name_is_the_clients_below_the_root_alone() {
        let mut names = names("root/a b/", &[PrefixPattern::Any], "");
        let name = names.shown("root/a b/x/%2F", ListedName::Key).unwrap();
        assert_eq!((name.plain.as_str(), name.written), ("x/%2F", "x/%2F"));
        for text in [
            "root/a b",
            "root/x",
            "Root/a b/x",
            "root%2Fa%20b%2Fx",
            "x",
            "",
        ] {
            assert_eq!(names.shown(text, ListedName::Key), Err(Unfit::OutOfScope));
        }
    }

    #[test]
    fn an_encoded_root_is_taken_off_in_whatever_form_it_comes() {
        let mut names = names("r(1)/a b/中/", &[PrefixPattern::Any], "encoding-type=url");
        for text in [
            "r%281%29/a%20b/%E4%B8%AD/x+%41",
            "r(1)%2fa+b%2F%e4%b8%ad%2Fx+%41",
            "%72(1)/a b/中/x+%41",
        ] {
            let name = names.shown(text, ListedName::Key).unwrap();
            assert_eq!((name.plain.as_str(), name.written), ("x A", "x+%41"));
        }
        for text in [
            "r%281%29/a%20b/%E4%B8/x",
            "r%281%29/a%2520b/%E4%B8%AD/x",
            "r%281%29%252Fa",
            "r%28",
            "r%2",
            "r%zz",
            "",
        ] {
            assert_eq!(
                names.shown(text, ListedName::Key),
                Err(Unfit::OutOfScope),
                "{text}"
            );
        }
        let broken = names.shown("r(1)/a b/中/%zz", ListedName::Key);
        assert!(matches!(broken, Err(Unfit::Malformed(_))));
    }

    #[test]
    fn a_name_survives_as_text_in_xml() {
        let text = "a<b>&\"c'\t\u{1}\u{1}中";
        let written = escaped(text);
        assert!(written.ends_with("&#x9;&#x1;&#x1;中"), "{written}");
        assert_eq!(quick_xml::escape::unescape(&written).unwrap(), text);
    }

    #[test]
    fn below_the_root_the_grants_prefixes_still_hold() {
        let folder = [PrefixPattern::StartsWith("in/".into())];
        let mut names = names("root/", &folder, "prefix=in/&marker=in/%3C");
        assert!(names.shown("root/in/x", ListedName::Key).is_ok());
        assert!(names.shown("root/in/", ListedName::Prefix).is_ok());
        for text in ["root/out/x", "in/x", "root/in"] {
            assert!(names.shown(text, ListedName::Key).is_err(), "{text}");
            assert!(names.shown(text, ListedName::Prefix).is_err(), "{text}");
        }
        assert_eq!(names.repeated(EchoedParameter::Prefix), "in/");
        assert_eq!(names.repeated(EchoedParameter::Marker), "in/&lt;");
        assert_eq!(names.repeated(EchoedParameter::KeyMarker), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Any writer's encoding of any key below the root gives the client's name back.
        #[test]
        fn an_encoded_name_survives(root in "[a-c %/中]{0,6}/", key in "[a-c %/中]{1,6}", escaped: [bool; 48]) {
            let mut text = String::new();
            for (at, char) in (root.clone() + &key).char_indices() {
                let mut bytes = [0; 4];
                let bytes = char.encode_utf8(&mut bytes).as_bytes();
                if char == '%' || escaped[at % escaped.len()] {
                    for byte in bytes {
                        write!(text, "%{byte:02x}").unwrap();
                    }
                } else {
                    text.push(char);
                }
            }
            let mut names = names(&root, &[PrefixPattern::Any], "encoding-type=url");
            prop_assert_eq!(names.shown(&text, ListedName::Key).unwrap().plain, key);
        }

        #[test]
        fn any_text_is_named_or_refused(root in "[a%/]{0,3}/", text in "[a%2F/+é]{0,12}") {
            for query in ["", "encoding-type=url"] {
                let _ = names(&root, &[PrefixPattern::Any], query).shown(&text, ListedName::Key);
            }
        }
    }
}
