//! The rewriting of each element of a listing, by what it carries and where it stands.

use std::borrow::Cow;

use bytes::BytesMut;
use quick_xml::escape::escape;

use super::document::{next_of, proof_of, root_of};
use super::text::{put_leaf, put_tag, text_of, unescaped};
use super::{DEPTH, DocumentStage, ResponseRewriter};
use crate::rewrite::element::{Element, ElementContent};
use crate::rewrite::names::{EchoedParameter, ListedName, Unfit, escaped};
use crate::rewrite::response::{error_code, is_clean};
use crate::s3::Operation;
use crate::s3::continuation::token_of_marker;
use crate::s3::storage_class::s3_class;
use crate::s3::xml::NAMESPACE;

/// What becomes of a leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Alias,
    EncodingType,
    ErrorCode,
    ErrorMessage,
    Location,
    Next,
    Repeated(EchoedParameter),
    Resource,
    Shown(ListedName),
    Tenant,
    Truncated,
    Unknown,
    Value,
    Withheld,
}

impl ResponseRewriter {
    pub(super) fn start(&mut self, element: Element, out: &mut BytesMut) -> Result<(), Unfit> {
        if self.open.is_empty() {
            return self.start_root(element, out);
        }
        if self.leaf == Some(Leaf::Unknown) {
            self.open_unknown(out)?;
        }
        if self.leaf.is_some() || self.open.len() == DEPTH {
            return Err(Unfit::Malformed("unexpected nesting in COS's XML"));
        }
        if self.dropped_at.is_none() && self.drops(&element) {
            self.dropped_at = Some(self.open.len());
        }
        let name = element.name.clone();
        self.open.push(element);
        if self.dropped_at.is_none() {
            self.leaf = self.fate();
            if self.leaf.is_none() {
                put_tag(out, "<", &name, "");
            }
        }
        Ok(())
    }

    /// A page that something on the way to COS wrote may name anything; a response to something else
    /// would be read as an empty one.
    fn start_root(&mut self, element: Element, out: &mut BytesMut) -> Result<(), Unfit> {
        if self.stage == DocumentStage::Over {
            return Err(Unfit::Malformed("COS's XML goes on after its end"));
        }
        self.begin();
        self.failed = element.carries == ElementContent::Failure;
        if self.failed {
            if !self.operation.may_fail_after_success() {
                return Err(Unfit::Malformed(
                    "COS's response is a failure after a success",
                ));
            }
            put_tag(out, "<", "Error", "");
        } else if root_of(self.operation) == Some(&*element.name) {
            let namespace = if self.native {
                String::new()
            } else {
                format!(" xmlns=\"{NAMESPACE}\"")
            };
            put_tag(out, "<", &element.name, &namespace);
        } else {
            return Err(Unfit::Malformed("COS's XML is no result of this operation"));
        }
        self.open.push(element);
        Ok(())
    }

    /// An element that is not known is no leaf after all: what stands before its first child is.
    fn open_unknown(&mut self, out: &mut BytesMut) -> Result<(), Unfit> {
        self.leaf = None;
        let raw = std::mem::take(&mut self.text);
        let text = text_of(&raw)?;
        if let Some(element) = self.open.last() {
            put_tag(out, "<", &element.name, "");
        }
        if self.is_clean(&unescaped(text)?) {
            out.extend_from_slice(&raw);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, element: &Element, out: &mut BytesMut) -> Result<(), Unfit> {
        if self.open.pop().as_ref() != Some(element) {
            return Err(Unfit::Malformed("COS's XML is not well formed"));
        }
        if self.dropped_at.is_some() {
            if self.dropped_at == Some(self.open.len()) {
                self.dropped_at = None;
            }
            return Ok(());
        }
        if let Some(leaf) = self.leaf.take() {
            let raw = std::mem::take(&mut self.text);
            self.settle(leaf, element, text_of(&raw)?, out)?;
            self.text = raw;
            self.text.clear(); // its memory serves the next text
            return Ok(());
        }
        if self.open.is_empty() {
            self.end(out)?;
        }
        put_tag(out, "</", &element.name, "");
        Ok(())
    }

    /// Elements of the first version's listing that the second does not have, or says at its end.
    fn drops(&self, element: &Element) -> bool {
        let (Some(version_2), Some(parent)) = (&self.version_2, self.open.last()) else {
            return false;
        };
        match &*element.name {
            "ContinuationToken"
            | "KeyCount"
            | "Marker"
            | "NextContinuationToken"
            | "StartAfter" => self.open.len() == 1,
            "Owner" => parent.name == "Contents" && !version_2.fetch_owner,
            _ => false,
        }
    }

    /// What becomes of the text in the element that was opened last; `None` if it holds elements.
    fn fate(&self) -> Option<Leaf> {
        let [.., parent, element] = self.open.as_slice() else {
            return None;
        };
        let is_top = self.open.len() == 2;
        let carries = element.carries;
        Some(match (parent.carries, carries) {
            (ElementContent::Tag, _) | (_, ElementContent::Value) => Leaf::Value,
            (ElementContent::AccountHolder, ElementContent::Account) => Leaf::Tenant,
            (ElementContent::Failure, ElementContent::Code) => Leaf::ErrorCode,
            (ElementContent::Failure, ElementContent::Key) => Leaf::Repeated(EchoedParameter::Key),
            (ElementContent::Failure, ElementContent::Message) => Leaf::ErrorMessage,
            (ElementContent::Failure, ElementContent::Resource) => Leaf::Resource,
            (_, ElementContent::Bucket) => Leaf::Alias,
            // A string to sign, a host, a key id; an account's number.
            (ElementContent::AccountHolder | ElementContent::Failure, _) => Leaf::Withheld,
            (
                _,
                ElementContent::AccountHolder
                | ElementContent::Elements
                | ElementContent::Failure
                | ElementContent::Tag,
            ) => {
                return None;
            }
            (_, ElementContent::EncodingType) => Leaf::EncodingType,
            (_, ElementContent::Location) => Leaf::Location,
            (_, ElementContent::Next) => Leaf::Next,
            (_, ElementContent::Repeated(what)) => Leaf::Repeated(what),
            (_, ElementContent::Key) if is_top => Leaf::Repeated(EchoedParameter::Key),
            (_, ElementContent::Name) if is_top => Leaf::Alias,
            (_, ElementContent::Prefix) if is_top => Leaf::Repeated(EchoedParameter::Prefix),
            (_, ElementContent::Truncated) if is_top => Leaf::Truncated,
            // Whatever it stands in: a listing has keys and prefixes that are its own alone.
            (_, ElementContent::Key) => Leaf::Shown(ListedName::Key),
            (_, ElementContent::Prefix) => Leaf::Shown(ListedName::Prefix),
            // It may name anything, or a known one stands where nothing is known of it.
            (
                _,
                ElementContent::Account
                | ElementContent::Code
                | ElementContent::Message
                | ElementContent::Name
                | ElementContent::Resource
                | ElementContent::Truncated
                | ElementContent::Unknown,
            ) => Leaf::Unknown,
        })
    }

    /// Writes a leaf with what becomes of its text, or leaves it out. It has been closed.
    fn settle(
        &mut self,
        leaf: Leaf,
        element: &Element,
        raw: &str,
        out: &mut BytesMut,
    ) -> Result<(), Unfit> {
        let Some(text) = self.becomes(leaf, raw)? else {
            return Ok(());
        };
        let is_class = element.name == "StorageClass" && !self.native;
        let class = is_class.then(|| s3_class(text.trim())).flatten();
        let text = class.map_or(text, Cow::Borrowed);
        let is_token = leaf == Leaf::Next && self.version_2.is_some();
        let name = if is_token {
            "NextContinuationToken"
        } else {
            &element.name
        };
        if self.open.len() == 1 && next_of(self.operation) == Some(name) {
            if std::mem::replace(&mut self.page.has_next, true) {
                // Which one a client takes is its parser's choice.
                return Err(Unfit::Malformed(
                    "COS's listing says twice where it goes on",
                ));
            }
            // No part has the number 0: a page from there would be the first again.
            let is_start = self.operation == Operation::ListParts && text.trim() == "0";
            self.page.goes_on = !text.trim().is_empty() && !is_start;
        }
        if self.open.len() == 1 && proof_of(self.operation) == Some(name) {
            self.is_proven = !unescaped(&text)?.trim_matches(['"', ' ']).is_empty();
        }
        let is_next = element.carries != ElementContent::Unknown && name.starts_with("Next");
        if self.border.is_some() && self.open.len() == 1 && is_next {
            return self.hold(name, &text);
        }
        put_leaf(out, name, &text);
        Ok(())
    }

    /// Keeps where COS goes on until it is known whether it does: stores say it in either order.
    fn hold(&mut self, name: &str, text: &str) -> Result<(), Unfit> {
        if self.held.iter().any(|(held, _)| held == name) {
            return Err(Unfit::Malformed(
                "COS's listing says twice where it goes on",
            ));
        }
        self.held.push((name.to_owned(), text.to_owned()));
        Ok(())
    }

    /// What becomes of a leaf's text, as text in XML; `None` leaves out the leaf.
    fn becomes<'t>(&mut self, leaf: Leaf, raw: &'t str) -> Result<Option<Cow<'t, str>>, Unfit> {
        if leaf == Leaf::Value {
            return Ok(Some(Cow::Borrowed(raw)));
        }
        let text = unescaped(raw)?;
        let own = |text: &str| Cow::Owned(escape(text).into_owned());
        Ok(Some(match leaf {
            Leaf::Alias => own(&self.names.grant().name),
            // Names are not encoded; there is no next page.
            Leaf::EncodingType | Leaf::Next if text.is_empty() => return Ok(None),
            Leaf::EncodingType if text == "url" => {
                self.names.are_encoded(true)?;
                Cow::Borrowed(raw)
            }
            Leaf::EncodingType => {
                return Err(Unfit::Malformed("an unknown encoding in COS's listing"));
            }
            Leaf::ErrorCode => Cow::Borrowed(error_code(raw)),
            Leaf::ErrorMessage | Leaf::Unknown if self.is_clean(&text) => Cow::Borrowed(raw),
            Leaf::ErrorMessage => Cow::Borrowed("The store failed to do this."),
            Leaf::Location => own(&self.location),
            Leaf::Next => {
                let shown = self.names.shown(&text, ListedName::Prefix)?;
                if shown.plain.is_empty() {
                    return Ok(None); // the root itself: a page from there would be the first again
                }
                if self.version_2.is_some() {
                    Cow::Owned(token_of_marker(&shown.plain))
                } else {
                    as_shown(raw, &text, shown.written)
                }
            }
            Leaf::Repeated(what) => Cow::Owned(self.names.repeated(what)),
            Leaf::Resource => own(&self.resource),
            Leaf::Shown(what) => {
                let shown = self.names.shown(&text, what)?;
                self.page.entries += 1;
                if shown.plain > self.page.last {
                    self.page.last = shown.plain;
                }
                as_shown(raw, &text, shown.written)
            }
            Leaf::Tenant => own(&self.tenant),
            Leaf::Truncated => Cow::Borrowed(self.truncated(text.trim())?),
            Leaf::Unknown | Leaf::Withheld => return Ok(None),
            Leaf::Value => Cow::Borrowed(raw),
        }))
    }

    fn is_clean(&self, text: &str) -> bool {
        is_clean(text, self.names.grant(), self.source.as_ref())
    }
}

/// A name as COS wrote it, in COS's own escaping where nothing was taken off.
fn as_shown<'t>(raw: &'t str, text: &str, written: &str) -> Cow<'t, str> {
    if written == text {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(escaped(written))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::config::UpstreamSignature;
    use crate::rewrite::listing::TEXT_BYTES;
    use crate::rewrite::listing::tests::{
        LISTING, WHOLE, document, list, rewrite, rewriter, rewritten, rooted, s3,
    };
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::S3Request;
    use crate::tenant::Permit;

    /// Of a store, in each of which something was once taken for a name: hosts, encoded names, an
    /// APPID, words of its signatures, and more than any message has.
    fn telling_tokens() -> [String; 7] {
        [
            "1-eyJrIjoiYSJ9.v1.x".into(),
            "acme%2Fphoto-0999.jpg".into(),
            "1250000000".into(),
            "token-secret-signature-AKID".into(),
            "shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/&amp;&lt;".into(),
            "a+b/c==".into(),
            "x".repeat(4000),
        ]
    }

    #[test]
    fn ids_markers_and_tokens_of_the_store_pass_to_the_letter() {
        for token in telling_tokens() {
            for (operation, root, next, query) in [
                (
                    Operation::ListObjectsV2,
                    "ListBucketResult",
                    "NextContinuationToken",
                    "list-type=2&prefix=acme/",
                ),
                (
                    Operation::ListObjectVersions,
                    "ListVersionsResult",
                    "NextVersionIdMarker",
                    "versions&prefix=acme/",
                ),
                (
                    Operation::ListMultipartUploads,
                    "ListMultipartUploadsResult",
                    "NextUploadIdMarker",
                    "uploads&prefix=acme/",
                ),
            ] {
                let response = format!(
                    "<{root}><IsTruncated>true</IsTruncated><{next}>{token}</{next}>\
                     <ContinuationToken>{token}</ContinuationToken><UploadIdMarker>{token}</UploadIdMarker>\
                     <VersionIdMarker>{token}</VersionIdMarker><NextKeyMarker>acme/z</NextKeyMarker>\
                     <Version><Key>acme/a</Key><VersionId>{token}</VersionId><ETag>{token}</ETag></Version>\
                     <Upload><Key>acme/a</Key><UploadId>{token}</UploadId></Upload></{root}>"
                );
                let shown = rewritten(s3_request(operation, "photos", "", query), &response);
                assert_eq!(shown, s3(&response), "{operation:?} {token}");
            }
        }
    }

    #[test]
    fn a_token_that_no_client_could_send_back_cuts_the_response_off() {
        let response = document(&format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            "x".repeat(TEXT_BYTES + 1)
        ));
        let requested = s3_request(
            Operation::ListObjectsV2,
            "photos",
            "",
            "list-type=2&prefix=acme/",
        );
        let cut = rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()]);
        assert!(matches!(cut, Err(Unfit::Malformed(_))), "{cut:?}");
    }

    #[test]
    fn tags_are_the_clients_own_texts() {
        let response = "<Tagging><TagSet><Tag><Key>a.b%</Key><Value>1250000000</Value></Tag>\
            <Tag><Key>token</Key><Value></Value></Tag></TagSet></Tagging>";
        let requested = s3_request(Operation::GetObjectTagging, "photos", "acme/k", "tagging");
        assert_eq!(rewritten(requested, response), s3(response));
    }

    #[test]
    fn what_is_not_known_shows_nothing_of_the_store() {
        let page = |text: &str| {
            document(&format!(
                "{WHOLE}<a:New b='{text}'>{text}</a:New><Resource>{text}</Resource>\
                 <Contents><Key>acme/a</Key><Extra> <In>{text}</In></Extra><Size>1</Size></Contents>"
            ))
        };
        let requested = || list("prefix=acme/");
        let plain = page("a word").replace("a:", "").replace(" b='a word'", "");
        assert_eq!(rewritten(requested(), &page("a word")), s3(&plain));
        let withheld =
            format!("{WHOLE}<Contents><Key>acme/a</Key><Extra> </Extra><Size>1</Size></Contents>");
        for with_next in [
            "shared-1250000000",
            "1250000000",
            "cos.ap-guangzhou.myqcloud.com",
            "a%2Fb",
        ] {
            assert_eq!(
                rewritten(requested(), &page(with_next)),
                s3(&document(&withheld)),
                "{with_next}"
            );
        }
    }

    #[test]
    fn a_listing_shows_the_alias_and_the_tenant() {
        assert_eq!(
            rewritten(list("prefix=acme/"), LISTING),
            LISTING
                .replace("shared-1250000000", "photos")
                .replace("qcs::cam::uin/100:uin/100", "acme")
                .replace("<DisplayName>100<", "<DisplayName>acme<")
        );
    }

    #[test]
    fn a_listing_that_leaves_the_prefix_is_cut_off() {
        for (response, query) in [
            (
                "<ListBucketResult><Contents><Key>other/x</Key></Contents></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><a:Contents><a:Key>other/x</a:Key></a:Contents></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><Version><Key>acme</Key></Version></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><DeleteMarker><Key>ac</Key></DeleteMarker></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><Upload><Key>Acme/x</Key></Upload></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><Unheard><Of><Key>other/x</Key></Of></Unheard></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><NextMarker>other/x</NextMarker></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><NextKeyMarker>a</NextKeyMarker></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><Contents><Key>acme%2Fx</Key></Contents></ListBucketResult>",
                "prefix=acme/",
            ),
            (
                "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>acme%2Ax</Key></Contents></ListBucketResult>",
                "prefix=acme/&encoding-type=url",
            ),
            (
                "<ListBucketResult><Contents><Key>acme%2Fx</Key></Contents></ListBucketResult>",
                "prefix=acme/&encoding-type=url",
            ),
        ] {
            let error =
                rewrite(list(query), UpstreamSignature::S3, &[response.as_bytes()]).unwrap_err();
            assert_eq!(error, Unfit::OutOfScope, "{response}");
        }
        for (key, query) in [
            ("acme&#47;x", "prefix=acme/"),
            ("acme%2Fa+b", "prefix=acme/&encoding-type=url"),
        ] {
            let encoding = if query.contains("encoding-type") {
                "<EncodingType>url</EncodingType>"
            } else {
                ""
            };
            let response = document(&format!(
                "{WHOLE}{encoding}<Contents><Key>{key}</Key></Contents>"
            ));
            assert_eq!(rewritten(list(query), &response), s3(&response));
        }
    }

    #[test]
    fn multipart_responses_name_what_the_client_named() {
        let requested = || {
            s3_request(
                Operation::CompleteMultipartUpload,
                "photos",
                "acme/a b",
                "uploadId=u",
            )
        };
        let response = "  \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult>\
            <Location>https://shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/a%20b</Location>\
            <Bucket>shared-1250000000</Bucket><Key>acme/a b</Key><ETag>e-1</ETag>\
            </CompleteMultipartUploadResult>";
        assert_eq!(
            rewritten(requested(), response),
            "  \n<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Location>https://cos.local/photos/acme/a%20b</Location>\
             <Bucket>photos</Bucket><Key>acme/a b</Key><ETag>e-1</ETag></CompleteMultipartUploadResult>"
        );
    }

    #[test]
    fn every_name_in_a_listing_is_the_clients_own() {
        let query = "prefix=acme/&marker=acme/a&key-marker=acme/b&start-after=acme/c";
        for (root, operation) in [
            ("ListBucketResult", Operation::ListObjects),
            ("ListVersionsResult", Operation::ListObjectVersions),
            (
                "ListMultipartUploadsResult",
                Operation::ListMultipartUploads,
            ),
        ] {
            let response = |root_in: &str| {
                let names = [
                    ("Prefix", "acme/"),
                    ("Marker", "acme/a"),
                    ("KeyMarker", "acme/b"),
                    ("NextMarker", "acme/z&amp;"),
                    ("NextKeyMarker", "acme/z"),
                    ("Delimiter", "/"),
                ]
                .map(|(name, text)| {
                    let root_in = if name == "Delimiter" { "" } else { root_in };
                    format!("<{name}>{root_in}{text}</{name}>")
                });
                let entries = ["Contents", "DeleteMarker", "Upload", "Version"].map(|entry| {
                    format!("<{entry}><Key>{root_in}acme/k &lt;</Key><Size>1</Size></{entry}>")
                });
                format!(
                    "<{root}>{WHOLE}{}{}<CommonPrefixes><Prefix>{root_in}acme/d/</Prefix></CommonPrefixes></{root}>",
                    names.concat(),
                    entries.concat()
                )
            };
            let requested = s3_request(operation, "photos", "", query);
            let shown = rooted(requested, UpstreamSignature::S3, &response("ro ot/")).unwrap();
            assert_eq!(shown, s3(&response("")), "{operation:?}");
            let requested = s3_request(operation, "photos", "", query);
            let outside = rooted(requested, UpstreamSignature::S3, &response("root/"));
            assert_eq!(outside, Err(Unfit::OutOfScope));
        }
    }

    #[test]
    fn a_token_of_a_virtual_bucket_is_made_of_the_clients_name() {
        let response = "<ListBucketResult><Marker>ro ot/acme/a</Marker><IsTruncated>true</IsTruncated>\
            <NextMarker>ro ot/acme/b</NextMarker></ListBucketResult>";
        for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
            let query = "list-type=2&prefix=acme/&start-after=acme/a";
            let requested = s3_request(Operation::ListObjectsV2, "photos", "", query);
            let shown = rooted(requested, signature, response).unwrap();
            let token = token_of_marker("acme/b");
            assert_eq!(
                shown,
                s3(&format!(
                    "<ListBucketResult><IsTruncated>true</IsTruncated>\
                     <NextContinuationToken>{token}</NextContinuationToken><KeyCount>0</KeyCount>\
                     <StartAfter>acme/a</StartAfter></ListBucketResult>"
                ))
            );
        }
    }

    #[test]
    fn what_cos_repeats_of_an_upload_is_what_the_client_named() {
        for (operation, root) in [
            (
                Operation::CompleteMultipartUpload,
                "CompleteMultipartUploadResult",
            ),
            (
                Operation::CreateMultipartUpload,
                "InitiateMultipartUploadResult",
            ),
            (Operation::ListParts, "ListPartsResult"),
        ] {
            let proof = "<ETag>e</ETag><UploadId>u</UploadId>";
            let response = format!(
                "<{root}>{WHOLE}<Location>http://x/ro%20ot/acme/x</Location>\
                 <Bucket>shared-1250000000</Bucket><Key>ro ot/acme/&amp;</Key>{proof}</{root}>"
            );
            let requested = s3_request(operation, "photos", "acme/&", "uploadId=u");
            assert_eq!(
                rooted(requested, UpstreamSignature::S3, &response).unwrap(),
                s3(&format!(
                    "<{root}>{WHOLE}<Location>https://cos.local/photos/acme/a%20b</Location>\
                     <Bucket>photos</Bucket><Key>acme/&amp;</Key>{proof}</{root}>"
                ))
            );
        }
        let failed = "<Error><Code>InternalError</Code><Message>ro ot/acme/x is gone</Message>\
            <Key>ro ot/acme/x</Key><BucketName>shared-1250000000</BucketName></Error>";
        let requested = s3_request(Operation::CopyObject, "photos", "acme/x", "");
        let requested = S3Request {
            copy_source: Some(crate::s3::CopySource {
                bucket: "public".into(),
                key: crate::s3::ObjectKey::from_decoded("y".into()).unwrap(),
                version_id: None,
            }),
            ..requested
        };
        assert_eq!(
            rooted(requested, UpstreamSignature::S3, failed).unwrap(),
            "<Error><Code>InternalError</Code><Message>The store failed to do this.</Message>\
             <Key>acme/x</Key><BucketName>photos</BucketName></Error>"
        );
    }

    #[test]
    fn an_error_after_a_200_tells_nothing_of_the_store() {
        let requested = s3_request(
            Operation::CompleteMultipartUpload,
            "photos",
            "acme/x",
            "uploadId=u",
        );
        let response = "<Error><Code>SignatureDoesNotMatch</Code><Message>AKIDxyz is wrong</Message>\
            <Resource>shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/x</Resource>\
            <RequestId>NjR=</RequestId><StringToSign>sha1 q-ak=AKIDxyz</StringToSign></Error>";
        assert_eq!(
            rewritten(requested, response),
            "<Error><Code>ServiceUnavailable</Code><Message>The store failed to do this.</Message>\
             <Resource>/photos/acme/x</Resource>\
             <RequestId>NjR=</RequestId></Error>"
        );
    }

    #[test]
    fn a_failure_after_a_200_is_seen() {
        let tenant = tenant();
        let requested = s3_request(
            Operation::CompleteMultipartUpload,
            "photos",
            "acme/x",
            "uploadId=u",
        );
        let permit = Permit::for_test(&tenant, requested).unwrap();
        for (response, failed) in [
            ("  <Error></Error>", true),
            (
                "<CompleteMultipartUploadResult><Error></Error><ETag>e</ETag></CompleteMultipartUploadResult>",
                false,
            ),
        ] {
            let mut rewriter = rewriter(&permit, UpstreamSignature::S3);
            rewriter
                .push(response.as_bytes(), &mut BytesMut::new())
                .unwrap();
            assert_eq!(rewriter.failed, failed, "{response}");
        }
    }
}
