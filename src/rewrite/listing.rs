//! XML answers that name the real bucket or keys in it, rewritten while they stream.
//!
//! Sans-IO: bytes in, bytes out. No more than one tag and one short text is held at a time.

use bytes::BytesMut;
use memchr::memchr;
use quick_xml::escape::{escape, unescape};

use super::element::Element;
use super::names::{Names, Repeated, Shown, Unfit, escaped};
use super::response::{error_code, is_clean};
use super::version_two::{VersionTwo, is_translated, token_of_marker};
use crate::config::UpstreamSignature;
use crate::s3::Operation;
use crate::sign::encoding::push_encoded_path;
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

/// Copies an XML answer through. The real bucket becomes the alias, keys become the client's, COS's
/// address of an object the client's, and the account's name the tenant's. A listing that shows
/// anything outside the grant is cut off with an error. What COS says after a `200` of a failure is
/// made fit for the client.
///
/// Where the first version of a listing was asked for the second, it also makes the second's of it.
#[derive(Debug)]
pub struct AnswerRewriter {
    names: Names,
    /// The grant that a copy reads from.
    source: Option<Grant>,
    tenant: String,
    /// `/alias/key`, percent-encoded.
    address: String,
    version_2: Option<VersionTwo>,
    open: Vec<Element>,
    /// Clients look for an `Error` in this answer. One that reads a listing would find it empty.
    may_fail: bool,
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
    Next,
    NextToken,
    Repeated(Repeated),
    Shown(Shown),
    Tenant,
    Truncated,
    Unknown,
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
        let translated = is_translated(asked.operation, grant, signature);
        Some(Self {
            names: Names::new(permit, grant),
            source: permit.source().cloned(), // the answer outlives the permit
            tenant: permit.tenant().name.clone(),
            address,
            version_2: translated.then(|| VersionTwo::new(&asked.query)),
            open: Vec::new(),
            may_fail: asked.operation.may_fail_after_success(),
            failed: false,
            tag: Vec::new(),
            quote: None,
            leaf: None,
            dropped_at: None,
        })
    }

    /// Takes the next bytes of COS's answer and appends to `out` what the client gets for them.
    /// After an error nothing more may be sent: the answer must be seen to be cut.
    pub fn push(&mut self, mut chunk: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
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
    pub fn finish(&self) -> Result<(), Unfit> {
        if self.open.is_empty() && self.tag.is_empty() {
            return Ok(());
        }
        Err(Unfit::Malformed("COS's XML ended early"))
    }

    fn text(&mut self, text: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        if self.open.is_empty() && !text.trim_ascii().is_empty() {
            return Err(Unfit::Malformed("COS's answer is not XML"));
        }
        match &mut self.leaf {
            Some((_, held)) if held.len() + text.len() > TEXT_BYTES => {
                return Err(Unfit::Malformed("a text in COS's XML is too long"));
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

    fn grow_tag(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        if self.tag.len() + bytes.len() > TAG_BYTES {
            return Err(Unfit::Malformed("a tag in COS's XML is too long"));
        }
        self.tag.extend_from_slice(bytes);
        Ok(())
    }

    /// One whole `<…>`.
    fn markup(&mut self, tag: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        match tag {
            [b'<', b'?', ..] if self.open.is_empty() => out.extend_from_slice(tag),
            // Comments, CDATA and DTDs, which COS does not write, would hide text from the checks.
            [b'<', b'?' | b'!', ..] => {
                return Err(Unfit::Malformed("unexpected markup in COS's XML"));
            }
            [b'<', b'/', name @ .., b'>'] => self.close(Element::of(name), tag, out)?,
            [b'<', name @ .., b'/', b'>'] => {
                let element = Element::of(name);
                if element == Element::NextMarker && self.version_2.is_some() {
                    return Ok(()); // there is no next page
                }
                self.start(element, tag, out)?;
                self.leave(element)?;
                self.leaf = None; // an empty text needs no change
                self.end_drop();
            }
            [b'<', name @ .., b'>'] => self.start(Element::of(name), tag, out)?,
            _ => return Err(Unfit::Malformed("a broken tag in COS's XML")),
        }
        Ok(())
    }

    fn start(&mut self, element: Element, tag: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        if matches!(self.leaf, Some((Leaf::Unknown, _))) {
            self.settle_leaf(out)?; // it is no leaf: what stands before its first child is
        }
        if self.leaf.is_some() || self.open.len() == DEPTH {
            return Err(Unfit::Malformed("unexpected nesting in COS's XML"));
        }
        let parent = self.open.last().copied();
        let is_error = element == Element::Error && self.may_fail;
        if parent.is_none() && !is_error && !is_result(tag) {
            return Err(Unfit::Malformed("COS's XML is no result"));
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
                return Ok(()); // its token has another name
            }
        }
        out.extend_from_slice(tag);
        Ok(())
    }

    fn close(&mut self, element: Element, tag: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        self.leave(element)?;
        if self.dropped_at.is_some() {
            self.end_drop();
            return Ok(());
        }
        self.settle_leaf(out)?;
        if let Some(version_2) = &self.version_2 {
            if element == Element::NextMarker {
                return Ok(());
            }
            if element == Element::ListBucketResult {
                out.extend_from_slice(version_2.tail(self.names.encoded()).as_bytes());
            }
        }
        out.extend_from_slice(tag);
        Ok(())
    }

    fn leave(&mut self, element: Element) -> Result<(), Unfit> {
        if self.open.pop() == Some(element) {
            return Ok(());
        }
        Err(Unfit::Malformed("COS's XML is not well formed"))
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
            (Element::Error, Element::Key) => Some(Leaf::Repeated(Repeated::Key)),
            (Element::Error, Element::RequestId | Element::VersionId) => None,
            (Element::Error, Element::Message) => Some(Leaf::ErrorMessage),
            (Element::Error, Element::Resource) => Some(Leaf::Address),
            (Element::Initiator | Element::Owner, Element::DisplayName | Element::Id) => {
                Some(Leaf::Tenant)
            }
            // A string to sign, a host, a key id; an account's number.
            (Element::Error | Element::Initiator | Element::Owner, _) => Some(Leaf::Blank),
            (_, Element::Bucket) => Some(Leaf::Alias),
            (_, Element::Location) => Some(Leaf::Address),
            (_, Element::NextMarker) if self.version_2.is_some() => Some(Leaf::NextToken),
            (_, Element::NextKeyMarker | Element::NextMarker) => Some(Leaf::Next),
            (_, Element::KeyMarker) => Some(Leaf::Repeated(Repeated::KeyMarker)),
            (_, Element::Marker) => Some(Leaf::Repeated(Repeated::Marker)),
            (_, Element::IsTruncated) if self.version_2.is_some() => Some(Leaf::Truncated),
            _ if self.open.len() == 2 => match element {
                Element::Name => Some(Leaf::Alias),
                Element::Key => Some(Leaf::Repeated(Repeated::Key)),
                Element::Prefix => Some(Leaf::Repeated(Repeated::Prefix)),
                Element::Other | Element::Resource => Some(Leaf::Unknown),
                _ => None,
            },
            // Whatever it stands in: a listing has keys and prefixes that are its own alone.
            (_, Element::Key) => Some(Leaf::Shown(Shown::Key)),
            (_, Element::Prefix) => Some(Leaf::Shown(Shown::Prefix)),
            (_, Element::Other | Element::Resource) => Some(Leaf::Unknown),
            _ => None,
        }
    }

    fn settle_leaf(&mut self, out: &mut BytesMut) -> Result<(), Unfit> {
        match self.leaf.take() {
            Some((fate, text)) => self.settle(fate, &text, out),
            None => Ok(()),
        }
    }

    /// Writes what becomes of a leaf's text.
    fn settle(&mut self, fate: Leaf, raw: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        let raw =
            std::str::from_utf8(raw).map_err(|_| Unfit::Malformed("COS's XML is not UTF-8"))?;
        let text = unescape(raw).map_err(|_| Unfit::Malformed("an unknown entity in COS's XML"))?;
        match fate {
            Leaf::Address => out.extend_from_slice(self.address.as_bytes()),
            Leaf::Alias => {
                out.extend_from_slice(escape(self.names.grant().alias.as_str()).as_bytes());
            }
            Leaf::ErrorMessage | Leaf::Unknown
                if is_clean(&text, self.names.grant(), self.source.as_ref()) =>
            {
                out.extend_from_slice(raw.as_bytes());
            }
            Leaf::Blank | Leaf::Unknown => {} // it may name anything
            Leaf::ErrorCode => out.extend_from_slice(error_code(raw).as_bytes()),
            Leaf::ErrorMessage => out.extend_from_slice(b"The store failed to do this."),
            Leaf::Next | Leaf::NextToken if text.is_empty() => {} // there is no next page
            Leaf::Next => self.show(raw, &text, Shown::Prefix, out).map(drop)?,
            Leaf::NextToken => {
                let token = token_of_marker(&self.names.shown(&text, Shown::Prefix)?.plain);
                if let Some(version_2) = &mut self.version_2 {
                    version_2.has_next = true;
                }
                for piece in [
                    "<NextContinuationToken>",
                    &token,
                    "</NextContinuationToken>",
                ] {
                    out.extend_from_slice(piece.as_bytes());
                }
            }
            Leaf::Repeated(what) => out.extend_from_slice(self.names.repeated(what).as_bytes()),
            Leaf::Shown(what) => {
                let shown = self.show(raw, &text, what, out)?;
                if let Some(version_2) = &mut self.version_2 {
                    version_2.reach(shown);
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

    /// Writes the client's name of what a listing shows; gives it, decoded.
    fn show(
        &self,
        raw: &str,
        text: &str,
        what: Shown,
        out: &mut BytesMut,
    ) -> Result<String, Unfit> {
        let shown = self.names.shown(text, what)?;
        if shown.written == text {
            out.extend_from_slice(raw.as_bytes());
        } else {
            out.extend_from_slice(escaped(shown.written).as_bytes());
        }
        Ok(shown.plain)
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
    ) -> Result<String, Unfit> {
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

    #[test]
    fn what_is_not_known_shows_nothing_of_the_store() {
        let page = |text: &str| {
            format!(
                "<ListBucketResult><New>{text}</New><Resource>{text}</Resource>\
                 <Contents><Key>acme/a</Key><Extra> <In>{text}</In></Extra><Size>1</Size></Contents>\
                 </ListBucketResult>"
            )
        };
        let asked = || list("prefix=acme/");
        assert_eq!(rewritten(asked(), &page("a word")), page("a word"));
        for told in [
            "shared-1250000000",
            "1250000000",
            "cos.ap-guangzhou.myqcloud.com",
            "a%2Fb",
        ] {
            assert_eq!(rewritten(asked(), &page(told)), page(""), "{told}");
        }
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
                "<Result><Unheard><Of><Key>other/x</Key></Of></Unheard></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><NextMarker>other/x</NextMarker></Result>",
                "prefix=acme/",
            ),
            (
                "<Result><NextKeyMarker>a</NextKeyMarker></Result>",
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
            assert_eq!(error, Unfit::OutOfScope, "{answer}");
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

    /// The same tenant, with `photos` below a root.
    fn rooted(
        asked: S3Request<'_>,
        signature: UpstreamSignature,
        answer: &str,
    ) -> Result<String, Unfit> {
        let mut tenant = tenant();
        tenant.grants[0].root = "ro ot/".into();
        let permit = Permit::for_test(&tenant, asked).unwrap();
        let mut rewriter = AnswerRewriter::new(&permit, signature).unwrap();
        let mut out = BytesMut::new();
        rewriter.push(answer.as_bytes(), &mut out)?;
        rewriter.finish()?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
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
            let answer = |root_in: &str| {
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
                    "<{root}>{}{}<CommonPrefixes><Prefix>{root_in}acme/d/</Prefix></CommonPrefixes></{root}>",
                    names.concat(),
                    entries.concat()
                )
            };
            let asked = ask(operation, "photos", "", query);
            let shown = rooted(asked, UpstreamSignature::S3, &answer("ro ot/")).unwrap();
            assert_eq!(shown, answer(""), "{operation:?}");
            let asked = ask(operation, "photos", "", query);
            let outside = rooted(asked, UpstreamSignature::S3, &answer("root/"));
            assert_eq!(outside, Err(Unfit::OutOfScope));
        }
    }

    #[test]
    fn encoded_names_are_the_clients_own_too() {
        let answer = "<ListBucketResult><Prefix>ro%20ot%2Facme%2F</Prefix><Marker>ro%20ot%2F</Marker>\
            <NextMarker>ro+ot/acme/%26</NextMarker><Contents><Key>ro%20ot/acme/a%2Bb+c</Key></Contents>\
            <CommonPrefixes><Prefix>ro%20ot/acme%2Fd/</Prefix></CommonPrefixes></ListBucketResult>";
        let asked = ask(
            Operation::ListObjects,
            "photos",
            "",
            "prefix=acme/&encoding-type=url",
        );
        assert_eq!(
            rooted(asked, UpstreamSignature::S3, answer).unwrap(),
            "<ListBucketResult><Prefix>acme/</Prefix><Marker></Marker>\
             <NextMarker>acme/%26</NextMarker><Contents><Key>acme/a%2Bb+c</Key></Contents>\
             <CommonPrefixes><Prefix>acme%2Fd/</Prefix></CommonPrefixes></ListBucketResult>"
        );
    }

    #[test]
    fn a_token_of_a_virtual_bucket_is_made_of_the_clients_name() {
        let answer = "<ListBucketResult><Marker>ro ot/acme/a</Marker><IsTruncated>true</IsTruncated>\
            <NextMarker>ro ot/acme/b</NextMarker></ListBucketResult>";
        for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
            let query = "list-type=2&prefix=acme/&start-after=acme/a";
            let asked = ask(Operation::ListObjectsV2, "photos", "", query);
            let shown = rooted(asked, signature, answer).unwrap();
            let token = token_of_marker("acme/b");
            assert_eq!(
                shown,
                format!(
                    "<ListBucketResult><IsTruncated>true</IsTruncated>\
                     <NextContinuationToken>{token}</NextContinuationToken><KeyCount>0</KeyCount>\
                     <StartAfter>acme/a</StartAfter></ListBucketResult>"
                )
            );
        }
    }

    #[test]
    fn what_cos_repeats_of_an_upload_is_what_the_client_named() {
        for operation in [
            Operation::CompleteMultipartUpload,
            Operation::CreateMultipartUpload,
            Operation::ListParts,
        ] {
            let answer = "<UploadResult><Location>http://x/ro%20ot/acme/x</Location>\
                <Bucket>shared-1250000000</Bucket><Key>ro ot/acme/&amp;</Key></UploadResult>";
            let asked = ask(operation, "photos", "acme/&", "uploadId=u");
            assert_eq!(
                rooted(asked, UpstreamSignature::S3, answer).unwrap(),
                "<UploadResult><Location>/photos/acme/%26</Location>\
                 <Bucket>photos</Bucket><Key>acme/&amp;</Key></UploadResult>"
            );
        }
        let failed = "<Error><Code>InternalError</Code><Message>ro ot/acme/x is gone</Message>\
            <Key>ro ot/acme/x</Key><BucketName>shared-1250000000</BucketName></Error>";
        let asked = ask(Operation::CopyObject, "photos", "acme/x", "");
        let asked = S3Request {
            copy_source: Some(crate::s3::CopySource {
                bucket: "public".into(),
                key: crate::s3::ObjectKey::from_decoded("y".into()).unwrap(),
                version_id: None,
            }),
            ..asked
        };
        assert_eq!(
            rooted(asked, UpstreamSignature::S3, failed).unwrap(),
            "<Error><Code>InternalError</Code><Message>The store failed to do this.</Message>\
             <Key>acme/x</Key><BucketName></BucketName></Error>"
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
    fn an_empty_next_marker_is_no_token() {
        for next in ["<NextMarker/>", "<NextMarker></NextMarker>"] {
            let answer = format!(
                "<ListBucketResult>{next}<IsTruncated>true</IsTruncated>\
                 <Contents><Key>acme/b</Key></Contents></ListBucketResult>"
            );
            let query = "list-type=2&prefix=acme/";
            let asked = ask(Operation::ListObjectsV2, "photos", "", query);
            let answer = rewrite(asked, UpstreamSignature::Cos, &[answer.as_bytes()]).unwrap();
            let token = token_of_marker("acme/b");
            let token = format!("<NextContinuationToken>{token}</NextContinuationToken>");
            assert_eq!(answer.matches("NextContinuationToken").count(), 2);
            assert!(answer.contains(&token), "{answer}");
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

    /// Something that a listing shows, inside the virtual bucket `ro ot/` or outside, in one of the
    /// ways in which XML can say it.
    fn some_entry() -> impl Strategy<Value = String> {
        let element = prop::sample::select(vec![
            ["<Contents><Key>", "</Key></Contents>"],
            ["<a:Contents><b:Key x='>'>", "</b:Key></a:Contents>"],
            ["<Version><Size>1</Size><Key >", "</Key ></Version>"],
            ["<DeleteMarker><Key>", "</Key></DeleteMarker>"],
            ["<Upload><Key>", "</Key></Upload>"],
            ["<Unheard><Of><Key>", "</Key></Of></Unheard>"],
            ["<CommonPrefixes><Prefix>", "</Prefix></CommonPrefixes>"],
            ["<NextMarker>", "</NextMarker>"],
            ["<NextKeyMarker>", "</NextKeyMarker>"],
            ["<Prefix>", "</Prefix>"],
            ["<Marker>", "</Marker>"],
            ["<KeyMarker>", "</KeyMarker>"],
            ["<Key>", "</Key>"],
            ["<Name>", "</Name>"],
            [
                "<Contents><Owner><ID>SECRET</ID></Owner><Key>",
                "</Key></Contents>",
            ],
        ]);
        let text = prop::sample::select(vec![
            "ro ot/acme/a",
            "ro%20ot/acme/a",
            "ro+ot%2Facme%2fa",
            "ro ot&#47;acme&#x2F;a",
            "SECRET",
            "ro ot/SECRET",
            "ro ot/acme",
            "ro%20ot/SECRET",
            "ro%2520ot/acme/SECRET",
            "ro ot%2Facme/SECRET/%zz",
            "root/acme/SECRET",
            "acme/SECRET",
            "ro ot/<!-- -->acme/SECRET",
            "<![CDATA[SECRET]]>",
            "ro ot/acme/<![CDATA[a]]>SECRET",
            "ro ot/acme/&e;SECRET",
            "ro ot/<b>SECRET</b>",
            "ro ot/\u{0}SECRET",
            "../SECRET",
        ]);
        (element, text).prop_map(|([before, after], text)| {
            // COS's own words inside are the client's business: only what is outside is a secret.
            [before, text, after].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

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

        /// However COS writes it and whatever it is cut into: what is outside is never shown.
        #[test]
        fn nothing_outside_is_ever_shown(
            entries in prop::collection::vec(some_entry(), 1..6), url: bool, cut in 1..40usize,
        ) {
            let mut tenant = tenant();
            tenant.grants[0].root = "ro ot/".into();
            let query = if url { "prefix=acme/&encoding-type=url" } else { "prefix=acme/" };
            let document = format!("<ListBucketResult>{}</ListBucketResult>", entries.concat());
            for (operation, signature) in [
                (Operation::ListObjects, UpstreamSignature::S3),
                (Operation::ListObjectsV2, UpstreamSignature::Cos),
                (Operation::ListObjectVersions, UpstreamSignature::S3),
            ] {
                let permit = Permit::for_test(&tenant, ask(operation, "photos", "", query)).unwrap();
                let mut rewriter = AnswerRewriter::new(&permit, signature).unwrap();
                let mut out = BytesMut::new();
                for piece in document.as_bytes().chunks(cut) {
                    if rewriter.push(piece, &mut out).is_err() {
                        break;
                    }
                }
                let shown = String::from_utf8(out.to_vec()).unwrap();
                for hidden in ["SECRET", "ro ot", "ro%20ot", "ro+ot"] {
                    prop_assert!(!shown.contains(hidden), "{} of {}", shown, document);
                }
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
