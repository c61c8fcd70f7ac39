//! XML answers that name the real bucket, rewritten while they stream.
//!
//! Sans-IO: bytes in, bytes out. No more than one tag and one short text is held at a time.

use bytes::BytesMut;
use memchr::memchr;
use quick_xml::escape::{escape, unescape};

use super::element::Element;
use super::response::is_clean;
use super::version_two::{VersionTwo, token_of_marker};
use crate::config::UpstreamSignature;
use crate::s3::{Code, Fault, Operation, S3Error};
use crate::sign::encoding::{percent_decode, push_encoded_path};
use crate::tenant::{Grant, Permit};

/// Whether answers to this operation must pass an [`AnswerRewriter`].
pub fn rewrites(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::CompleteMultipartUpload
            | Operation::CopyObject
            | Operation::CreateMultipartUpload
            | Operation::DeleteObjects
            | Operation::ListMultipartUploads
            | Operation::ListObjects
            | Operation::ListObjectsV2
            | Operation::ListObjectVersions
            | Operation::ListParts
            | Operation::UploadPartCopy
    )
}

/// Copies an XML answer through. The real bucket becomes the alias, COS's address of an object the
/// client's, and the account's name the tenant's. A listing that shows anything outside the grant
/// is cut off with an error. What COS says after a `200` of a failure is made fit for the client.
///
/// Toward COS's own API it also makes the answer to `ListObjectsV2` of the first version's.
#[derive(Debug)]
pub struct AnswerRewriter {
    grant: Grant,
    tenant: String,
    /// `/alias/key`, percent-encoded.
    address: String,
    /// Keys in the answer are percent-encoded (`encoding-type=url`).
    encoded: bool,
    version_2: Option<VersionTwo>,
    open: Vec<Element>,
    /// The document's root is `Error`.
    failed: bool,
    /// A tag whose `>` has not come yet, and the quote that it is within.
    tag: Vec<u8>,
    quote: Option<u8>,
    /// The text of a leaf that is changed or checked, and what becomes of it.
    leaf: Option<(Leaf, Vec<u8>)>,
    /// Nothing is copied while more elements than this are open.
    dropped_at: Option<usize>,
}

/// What becomes of a leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Address,
    Alias,
    Blank,
    ErrorCode,
    ErrorMessage,
    Key,
    NextMarker,
    Prefix,
    Tenant,
    Truncated,
}

/// The longest text that is changed or checked: a key of 850 bytes, each of them escaped as `&#xHH;`.
const TEXT_BYTES: usize = 8 << 10;
/// The longest tag.
const TAG_BYTES: usize = 1 << 10;
/// The deepest nesting.
const DEPTH: usize = 16;

impl AnswerRewriter {
    /// A rewriter for a successful answer, if answers to this operation need one.
    pub fn new(permit: &Permit<'_, '_>, signature: UpstreamSignature) -> Option<Self> {
        let (asked, grant) = (permit.request(), permit.grant()?);
        if !rewrites(asked.operation) {
            return None;
        }
        let mut address = format!("/{}/", grant.alias);
        if let Some(key) = &asked.key {
            push_encoded_path(&mut address, key.as_str().as_bytes());
        }
        let translated =
            asked.operation == Operation::ListObjectsV2 && signature == UpstreamSignature::Cos;
        Some(Self {
            grant: grant.clone(), // the answer outlives the permit
            tenant: permit.tenant().name.clone(),
            address,
            encoded: asked.query.get("encoding-type") == Some("url"),
            version_2: translated.then(|| VersionTwo::new(&asked.query)),
            open: Vec::new(),
            failed: false,
            tag: Vec::new(),
            quote: None,
            leaf: None,
            dropped_at: None,
        })
    }

    /// Takes the next bytes of COS's answer and appends to `out` what the client gets for them.
    /// After an error nothing more may be sent: the answer must be seen to be cut.
    pub fn push(&mut self, mut chunk: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        while !chunk.is_empty() {
            if self.tag.is_empty() {
                let (text, rest) = chunk.split_at(memchr(b'<', chunk).unwrap_or(chunk.len()));
                self.text(text, out)?;
                let Some((bracket, rest)) = rest.split_first() else {
                    return Ok(());
                };
                self.tag.push(*bracket);
                chunk = rest;
            }
            let Some(end) = self.tag_end(chunk) else {
                return self.grow_tag(chunk);
            };
            let (tag, rest) = chunk.split_at(end);
            self.grow_tag(tag)?;
            let tag = std::mem::take(&mut self.tag);
            self.markup(&tag, out)?;
            self.tag = tag;
            self.tag.clear(); // its memory serves the next tag
            chunk = rest;
        }
        Ok(())
    }

    /// Whether COS reports a failure after its `200`, as it may for a copy or a completed upload
    /// (436/10881, 436/7742). The client finds it in the body; counters find it here.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Whether the answer ended where a document ends.
    pub fn finish(&self) -> Result<(), S3Error> {
        if self.open.is_empty() && self.tag.is_empty() {
            return Ok(());
        }
        Err(malformed("COS's XML ended early"))
    }

    fn text(&mut self, text: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        if self.open.is_empty() && !text.trim_ascii().is_empty() {
            return Err(malformed("COS's answer is not XML"));
        }
        match &mut self.leaf {
            Some((_, held)) if held.len() + text.len() > TEXT_BYTES => {
                return Err(malformed("a text in COS's XML is too long"));
            }
            Some((_, held)) => held.extend_from_slice(text),
            None if self.dropped_at.is_none() => out.extend_from_slice(text),
            None => {}
        }
        Ok(())
    }

    /// How much of `chunk` the tag takes, its `>` included. `>` may stand in an attribute's value.
    fn tag_end(&mut self, chunk: &[u8]) -> Option<usize> {
        for (at, &byte) in chunk.iter().enumerate() {
            match (self.quote, byte) {
                (None, b'>') => return Some(at + 1),
                (None, b'"' | b'\'') => self.quote = Some(byte),
                (Some(quote), _) if quote == byte => self.quote = None,
                _ => {}
            }
        }
        None
    }

    fn grow_tag(&mut self, bytes: &[u8]) -> Result<(), S3Error> {
        if self.tag.len() + bytes.len() > TAG_BYTES {
            return Err(malformed("a tag in COS's XML is too long"));
        }
        self.tag.extend_from_slice(bytes);
        Ok(())
    }

    /// One whole `<…>`.
    fn markup(&mut self, tag: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        match tag {
            [b'<', b'?', ..] if self.open.is_empty() => out.extend_from_slice(tag),
            // Comments, CDATA and DTDs, which COS does not write, would hide text from the checks.
            [b'<', b'?' | b'!', ..] => return Err(malformed("unexpected markup in COS's XML")),
            [b'<', b'/', name @ .., b'>'] => self.close(Element::of(name), tag, out)?,
            [b'<', name @ .., b'/', b'>'] => {
                let element = Element::of(name);
                if element == Element::NextMarker && self.version_2.is_some() {
                    return Ok(()); // it would be a token for nothing
                }
                self.start(element, tag, out)?;
                self.leave(element)?;
                self.leaf = None; // an empty text needs no change
                self.end_drop();
            }
            [b'<', name @ .., b'>'] => self.start(Element::of(name), tag, out)?,
            _ => return Err(malformed("a broken tag in COS's XML")),
        }
        Ok(())
    }

    fn start(&mut self, element: Element, tag: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        if self.leaf.is_some() || self.open.len() == DEPTH {
            return Err(malformed("unexpected nesting in COS's XML"));
        }
        let parent = self.open.last().copied();
        if parent.is_none() && element != Element::Error && !is_result(tag) {
            return Err(malformed("COS's XML is no result"));
        }
        self.failed |= parent.is_none() && element == Element::Error;
        if self.dropped_at.is_none() && self.drops(parent, element) {
            self.dropped_at = Some(self.open.len());
        }
        self.open.push(element);
        if self.dropped_at.is_some() {
            return Ok(());
        }
        self.leaf = self.fate(parent, element).map(|fate| (fate, Vec::new()));
        if let Some(version_2) = &mut self.version_2 {
            let counts = matches!(element, Element::CommonPrefixes | Element::Contents);
            version_2.keys += u64::from(counts);
            if element == Element::NextMarker {
                out.extend_from_slice(b"<NextContinuationToken>");
                return Ok(());
            }
        }
        out.extend_from_slice(tag);
        Ok(())
    }

    fn close(&mut self, element: Element, tag: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        self.leave(element)?;
        if self.dropped_at.is_some() {
            self.end_drop();
            return Ok(());
        }
        if let Some((fate, text)) = self.leaf.take() {
            self.settle(fate, &text, out)?;
        }
        if let Some(version_2) = &self.version_2 {
            if element == Element::NextMarker {
                out.extend_from_slice(b"</NextContinuationToken>");
                return Ok(());
            }
            if element == Element::ListBucketResult {
                out.extend_from_slice(version_2.tail(self.encoded).as_bytes());
            }
        }
        out.extend_from_slice(tag);
        Ok(())
    }

    fn leave(&mut self, element: Element) -> Result<(), S3Error> {
        if self.open.pop() == Some(element) {
            return Ok(());
        }
        Err(malformed("COS's XML is not well formed"))
    }

    fn end_drop(&mut self) {
        if self.dropped_at == Some(self.open.len()) {
            self.dropped_at = None;
        }
    }

    /// Elements of the first version's listing that the second does not have.
    fn drops(&self, parent: Option<Element>, element: Element) -> bool {
        let Some(version_2) = &self.version_2 else {
            return false;
        };
        match (parent, element) {
            (Some(Element::ListBucketResult), Element::Marker) => true,
            (Some(Element::Contents), Element::Owner) => !version_2.fetch_owner,
            _ => false,
        }
    }

    /// What becomes of the text in `element`; `None` copies it.
    fn fate(&self, parent: Option<Element>, element: Element) -> Option<Leaf> {
        match (parent?, element) {
            (Element::Error, Element::Code) => Some(Leaf::ErrorCode),
            (Element::Error, Element::Key | Element::RequestId | Element::VersionId) => None,
            (Element::Error, Element::Message) => Some(Leaf::ErrorMessage),
            (Element::Error, Element::Resource) => Some(Leaf::Address),
            (Element::Error, _) => Some(Leaf::Blank), // a string to sign, a host, a key id
            (Element::Initiator | Element::Owner, Element::DisplayName | Element::Id) => {
                Some(Leaf::Tenant)
            }
            (Element::CommonPrefixes, Element::Prefix) => Some(Leaf::Prefix),
            (
                Element::Contents | Element::DeleteMarker | Element::Upload | Element::Version,
                Element::Key,
            ) => Some(Leaf::Key),
            (_, Element::Bucket | Element::Name) if self.open.len() == 2 => Some(Leaf::Alias),
            (_, Element::Location) => Some(Leaf::Address),
            (_, Element::IsTruncated) if self.version_2.is_some() => Some(Leaf::Truncated),
            (_, Element::NextMarker) if self.version_2.is_some() => Some(Leaf::NextMarker),
            _ => None,
        }
    }

    /// Writes what becomes of a leaf's text.
    fn settle(&mut self, fate: Leaf, raw: &[u8], out: &mut BytesMut) -> Result<(), S3Error> {
        let raw = std::str::from_utf8(raw).map_err(|_| malformed("COS's XML is not UTF-8"))?;
        let text = unescape(raw).map_err(|_| malformed("an unknown entity in COS's XML"))?;
        match fate {
            Leaf::Address => out.extend_from_slice(self.address.as_bytes()),
            Leaf::Alias => out.extend_from_slice(escape(self.grant.alias.as_str()).as_bytes()),
            Leaf::Blank => {}
            Leaf::ErrorCode => out.extend_from_slice(error_code(raw).as_bytes()),
            Leaf::ErrorMessage if is_clean(&text, &self.grant) => {
                out.extend_from_slice(raw.as_bytes());
            }
            Leaf::ErrorMessage => out.extend_from_slice(b"The store failed to do this."),
            Leaf::Key | Leaf::Prefix => {
                let shown = self.shown(&text, fate)?;
                if let Some(version_2) = &mut self.version_2 {
                    version_2.reach(shown);
                }
                out.extend_from_slice(raw.as_bytes());
            }
            Leaf::NextMarker => {
                let marker = if self.encoded {
                    url_decoded(&text, false)?
                } else {
                    text.into_owned()
                };
                out.extend_from_slice(token_of_marker(&marker).as_bytes());
                if let Some(version_2) = &mut self.version_2 {
                    version_2.has_next = true;
                }
            }
            Leaf::Tenant => out.extend_from_slice(escape(self.tenant.as_str()).as_bytes()),
            Leaf::Truncated => {
                if let Some(version_2) = &mut self.version_2 {
                    version_2.truncated = text == "true";
                }
                out.extend_from_slice(raw.as_bytes());
            }
        }
        Ok(())
    }

    /// The key or common prefix that a listing shows, decoded, if it may be seen. An encoded space
    /// is `+` at AWS, so that where a `+` stands either reading may be the one inside.
    fn shown(&self, text: &str, fate: Leaf) -> Result<String, S3Error> {
        let inside = |key: &str| match fate {
            Leaf::Prefix => self.grant.covers_list(key),
            _ => self.grant.covers(key),
        };
        let plain = if self.encoded {
            url_decoded(text, false)?
        } else {
            text.to_owned()
        };
        if inside(&plain) {
            return Ok(plain);
        }
        if self.encoded {
            let spaced = url_decoded(text, true)?;
            if inside(&spaced) {
                return Ok(spaced);
            }
        }
        Err(malformed("a listing showed a key outside the grant"))
    }
}

/// Whether a root's tag is that of an answer that is known here: each of them is some `…Result`. A page
/// that something on the way to COS wrote may name anything.
fn is_result(tag: &[u8]) -> bool {
    let name = tag
        .split(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    name.ends_with(b"Result")
}

fn url_decoded(text: &str, plus_is_space: bool) -> Result<String, S3Error> {
    let text = if plus_is_space {
        text.replace('+', " ")
    } else {
        text.to_owned()
    };
    percent_decode(&text)
        .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok())
        .ok_or_else(|| malformed("a key in COS's listing is wrongly encoded"))
}

/// A failure of our key or clock, as one that the client may try again.
fn error_code(code: &str) -> &str {
    match code {
        "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch" => "ServiceUnavailable",
        other => other,
    }
}

fn malformed(detail: &str) -> S3Error {
    S3Error::new(
        Code::BadGateway,
        "The store's answer cannot be used. Please try again.",
    )
    .fault(Fault::Upstream)
    .detail(detail)
    .close()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rewrite::tests::{ask, tenant};
    use crate::s3::S3Request;

    fn rewrite(
        asked: S3Request<'_>,
        signature: UpstreamSignature,
        pieces: &[&[u8]],
    ) -> Result<String, S3Error> {
        let tenant = tenant();
        let permit = Permit::for_test(&tenant, asked).unwrap();
        let mut rewriter = AnswerRewriter::new(&permit, signature).unwrap();
        let mut out = BytesMut::new();
        for piece in pieces {
            rewriter.push(piece, &mut out)?;
        }
        rewriter.finish()?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn a_page_that_is_no_answer_of_cos_is_not_passed_on() {
        for page in [
            "shared-1250000000 is down",
            "<html>shared-1250000000.cos.ap-guangzhou.myqcloud.com</html>",
            "<ListBucketResult></ListBucketResult>shared-1250000000",
        ] {
            let passed = rewrite(
                list("prefix=acme%2F"),
                UpstreamSignature::S3,
                &[page.as_bytes()],
            );
            assert!(passed.is_err(), "{page}");
        }
        let prefixed =
            "\n<?xml version='1.0'?>\n<s3:ListBucketResult xmlns:s3='x'></s3:ListBucketResult>\n";
        let passed = rewrite(
            list("prefix=acme%2F"),
            UpstreamSignature::S3,
            &[prefixed.as_bytes()],
        );
        assert_eq!(passed.unwrap(), prefixed);
    }

    fn list(query: &str) -> S3Request<'_> {
        ask(Operation::ListObjects, "photos", "", query)
    }

    fn rewritten(asked: S3Request<'_>, answer: &str) -> String {
        rewrite(asked, UpstreamSignature::S3, &[answer.as_bytes()]).unwrap()
    }

    const LISTING: &str = "<?xml version='1.0' encoding='utf-8' ?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>shared-1250000000</Name><Prefix>acme/</Prefix><Marker/><MaxKeys>2</MaxKeys>\
        <IsTruncated>true</IsTruncated><NextMarker>acme/b &amp; c</NextMarker>\
        <Contents><Key>acme/Name</Key><ETag>\"x>y\"</ETag><Size>1</Size>\
        <Owner><ID>qcs::cam::uin/100:uin/100</ID><DisplayName>100</DisplayName></Owner></Contents>\
        <CommonPrefixes><Prefix>acme/d/</Prefix></CommonPrefixes></ListBucketResult>";

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
        for (answer, query) in [
            (
                "<Result><Contents><Key>other/x</Key></Contents></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><a:Contents><a:Key>other/x</a:Key></a:Contents></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><Version><Key>acme</Key></Version></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><DeleteMarker><Key>ac</Key></DeleteMarker></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><Upload><Key>Acme/x</Key></Upload></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><Contents><Key>acme%2Fx</Key></Contents></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><Contents><Key>acme%2Ax</Key></Contents></Result>",
                "prefix=acme/&encoding-type=url",
            ),
        ] {
            let error =
                rewrite(list(query), UpstreamSignature::S3, &[answer.as_bytes()]).unwrap_err();
            assert_eq!(error.code(), Code::BadGateway, "{answer}");
            assert!(error.closes());
        }
        for (key, query) in [
            ("acme&#47;x", "prefix=acme/"),
            ("acme%2Fa+b", "prefix=acme/&encoding-type=url"),
        ] {
            let answer = format!("<Result><Contents><Key>{key}</Key></Contents></Result>");
            assert_eq!(rewritten(list(query), &answer), answer);
        }
    }

    #[test]
    fn what_would_hide_text_from_the_checks_is_refused() {
        for answer in [
            "<!DOCTYPE x [<!ENTITY y 'z'>]><R/>",
            "<Result><Contents><Key>acme/<!-- -->x</Key></Contents></Result>",
            "<Result><Contents><Key><![CDATA[other]]></Key></Contents></Result>",
            "<Result><Contents><Key>&other;</Key></Contents></Result>",
            "<Result><Contents><Key>acme/<b>x</b></Key></Contents></Result>",
            "<Result></Key>",
            "<Result>",
            "</Result>",
            "<R",
            "<>",
        ] {
            let refused = rewrite(
                list("prefix=acme/"),
                UpstreamSignature::S3,
                &[answer.as_bytes()],
            );
            assert!(refused.is_err(), "{answer}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let long_key = format!(
            "<Result><Contents><Key>acme/{}</Key></Contents></Result>",
            "x".repeat(9000)
        );
        let long_tag = format!("<R a='{}'></Result>", "x".repeat(2000));
        let deep = "<a>".repeat(40);
        for answer in [long_key, long_tag, deep] {
            assert!(
                rewrite(
                    list("prefix=acme/"),
                    UpstreamSignature::S3,
                    &[answer.as_bytes()]
                )
                .is_err()
            );
        }
    }

    #[test]
    fn multipart_answers_name_what_the_client_named() {
        let asked = || {
            ask(
                Operation::CompleteMultipartUpload,
                "photos",
                "acme/a b",
                "uploadId=u",
            )
        };
        let answer = "  \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult>\
            <Location>https://shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/a%20b</Location>\
            <Bucket>shared-1250000000</Bucket><Key>acme/a b</Key></CompleteMultipartUploadResult>";
        assert_eq!(
            rewritten(asked(), answer),
            "  \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult>\
             <Location>/photos/acme/a%20b</Location>\
             <Bucket>photos</Bucket><Key>acme/a b</Key></CompleteMultipartUploadResult>"
        );
    }

    #[test]
    fn an_error_after_a_200_tells_nothing_of_the_store() {
        let asked = ask(
            Operation::CompleteMultipartUpload,
            "photos",
            "acme/x",
            "uploadId=u",
        );
        let answer = "<Error><Code>SignatureDoesNotMatch</Code><Message>AKIDxyz is wrong</Message>\
            <Resource>shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/x</Resource>\
            <RequestId>NjR=</RequestId><StringToSign>sha1 q-ak=AKIDxyz</StringToSign></Error>";
        assert_eq!(
            rewritten(asked, answer),
            "<Error><Code>ServiceUnavailable</Code><Message>The store failed to do this.</Message>\
             <Resource>/photos/acme/x</Resource>\
             <RequestId>NjR=</RequestId><StringToSign></StringToSign></Error>"
        );
    }

    #[test]
    fn a_failure_after_a_200_is_seen() {
        let tenant = tenant();
        let asked = ask(
            Operation::CompleteMultipartUpload,
            "photos",
            "acme/x",
            "uploadId=u",
        );
        let permit = Permit::for_test(&tenant, asked).unwrap();
        for (answer, failed) in [
            ("  <Error></Error>", true),
            ("<Result><Error></Error></Result>", false),
        ] {
            let mut rewriter = AnswerRewriter::new(&permit, UpstreamSignature::S3).unwrap();
            rewriter
                .push(answer.as_bytes(), &mut BytesMut::new())
                .unwrap();
            assert_eq!(rewriter.failed(), failed, "{answer}");
        }
    }

    #[test]
    fn the_first_versions_listing_becomes_the_seconds() {
        let asked = || {
            let query = "list-type=2&prefix=acme/&max-keys=2&start-after=acme/0%26";
            ask(Operation::ListObjectsV2, "photos", "", query)
        };

        let answer = rewrite(asked(), UpstreamSignature::Cos, &[LISTING.as_bytes()]).unwrap();

        let token = token_of_marker("acme/b & c");
        assert!(answer.contains(&format!(
            "<NextContinuationToken>{token}</NextContinuationToken>"
        )));
        assert!(answer.ends_with(
            "</CommonPrefixes><KeyCount>2</KeyCount><StartAfter>acme/0&amp;</StartAfter></ListBucketResult>"
        ));
        for gone in ["Marker", "Owner", "1250000000"] {
            assert!(!answer.contains(gone), "{gone}");
        }
    }

    #[test]
    fn a_truncated_listing_always_says_where_the_next_page_starts() {
        let answer = "<ListBucketResult><IsTruncated>true</IsTruncated>\
            <Contents><Key>acme%2Fb</Key></Contents><CommonPrefixes><Prefix>acme%2Fa%2F</Prefix>\
            </CommonPrefixes></ListBucketResult>";
        let query = "list-type=2&prefix=acme/&encoding-type=url";
        let asked = ask(Operation::ListObjectsV2, "photos", "", query);

        let answer = rewrite(asked, UpstreamSignature::Cos, &[answer.as_bytes()]).unwrap();

        let token = token_of_marker("acme/b");
        assert!(answer.contains(&format!(
            "<NextContinuationToken>{token}</NextContinuationToken>"
        )));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_split_gives_the_same_answer(cuts in prop::collection::vec(0..LISTING.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, LISTING.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &LISTING.as_bytes()[w[0]..w[1]]).collect();
            for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
                let asked = || ask(Operation::ListObjectsV2, "photos", "", "list-type=2&prefix=acme/");
                let whole = rewrite(asked(), signature, &[LISTING.as_bytes()]).unwrap();
                prop_assert_eq!(rewrite(asked(), signature, &pieces).unwrap(), whole);
            }
        }

        #[test]
        fn no_bytes_panic_and_the_outcome_does_not_depend_on_their_split(
            bytes in "[<>/!?a&;'\"= KeyContsP]{0,60}", cut in 0..60usize,
        ) {
            let cut = cut.min(bytes.len());
            let run = |pieces: &[&[u8]]| rewrite(list("prefix=acme/"), UpstreamSignature::Cos, pieces).ok();
            let whole = run(&[bytes.as_bytes()]);
            prop_assert_eq!(run(&[&bytes.as_bytes()[..cut], &bytes.as_bytes()[cut..]]), whole);
        }
    }
}
