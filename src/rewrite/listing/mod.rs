//! XML responses that name the real bucket or keys in it, rewritten while they stream.
//!
//! **A client may get an error; it may never get a shorter truth.** What an element carries stands in
//! the table of `element.rs`: a name is judged and rewritten, a token, marker or id of the store passes
//! to the letter, and nothing known is ever blanked. An element that is not known is the only one that
//! may be withheld, whole. A listing that says that there is more leaves only with that from which its
//! client goes on; else it is cut off before its end, as is one that does not say whether it is whole.
//!
//! Sans-IO: bytes in, bytes out. No more than one tag and one short text is held at a time, but where
//! names are to be percent-encoded and the response has not declared yet whether they are.

mod document;
mod elements;
mod encoding;
mod page;
mod text;

use bytes::BytesMut;
use memchr::memchr;

use super::element::Element;
use super::names::{Names, Unfit};
use super::version_two::{VersionTwo, is_translated};
use crate::config::UpstreamSignature;
use crate::encoding::percent::push_encoded_path;
use crate::s3::Operation;
use crate::tenant::{Grant, ListingPage, Permit};
use document::root_of;
use elements::Leaf;
use encoding::declared_encoding;
use page::Page;
use text::is_utf8;

pub(super) use document::rewrites;

/// Copies an XML response through. The real bucket becomes the alias, keys become the client's, COS's
/// address of an object the client's, and the account's name the tenant's. A listing that shows
/// anything outside the grant is cut off with an error. What COS reports after a `200` of a failure is
/// made fit for the client. Root, namespace and attributes are S3's, or none for a client of COS's own
/// API, whatever the store writes.
///
/// Where version 1 of a listing stands in for version 2, it also makes the response of version 2.
#[derive(Debug)]
pub(crate) struct ResponseRewriter {
    names: Names,
    /// The grant that a copy reads from.
    source: Option<Grant>,
    tenant: String,
    operation: Operation,
    /// The client speaks COS's own API.
    native: bool,
    /// `/alias/key`, percent-encoded.
    resource: String,
    /// The object's URL, as the client reached it.
    location: String,
    version_2: Option<VersionTwo>,
    page: Page,
    /// Where the listing goes on after all that COS has below this prefix.
    border: Option<String>,
    /// With a border, what COS reports of where it goes on: names and texts.
    held: Vec<(String, String)>,
    /// The response has the element of `proof_of`.
    is_proven: bool,
    /// What has come of a response that has not declared yet how its names are encoded.
    early: Option<Vec<u8>>,
    open: Vec<Element>,
    stage: DocumentStage,
    /// The document's root is `Error`.
    failed: bool,
    /// A tag whose `>` has not come yet, and the quote that it is within.
    tag: Vec<u8>,
    quote: Option<u8>,
    /// What becomes of the text of the leaf that is open, and that text.
    leaf: Option<Leaf>,
    text: Vec<u8>,
    /// Nothing is copied while more elements than this are open.
    dropped_at: Option<usize>,
}

/// How far the response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DocumentStage {
    /// Nothing of it is there.
    New,
    Begun,
    /// Its root has been closed.
    Over,
}

/// The longest text: a key of 850 bytes, each of them escaped as `&#xHH;`, or a token. A client could not
/// send back a longer one: that would not fit into its head.
const TEXT_BYTES: usize = 8 << 10;

/// The longest tag.
const TAG_BYTES: usize = 1 << 10;

/// The deepest nesting.
const DEPTH: usize = 16;

/// The most that is held of a response that has not declared how its names are encoded: 1000 keys of 850 bytes,
/// each byte escaped, and what stands beside them. COS reports it before the first key.
const EARLY_BYTES: usize = 8 << 20;

impl ResponseRewriter {
    /// A rewriter for a successful response, if responses to this operation need one. `location` is the URL
    /// of the object that the request names, as the client reached it; `native` says that it speaks
    /// COS's own API.
    pub(crate) fn new(
        permit: &Permit<'_, '_>,
        signature: UpstreamSignature,
        native: bool,
        location: String,
    ) -> Option<Self> {
        let (requested, grant) = (permit.request(), permit.grant()?);
        root_of(requested.operation)?;
        let mut resource = format!("/{}/", grant.name);
        if let Some(key) = &requested.key {
            push_encoded_path(&mut resource, key.as_str().as_bytes());
        }
        let translated = is_translated(permit, grant, signature);
        let border = match permit.listing_page() {
            ListingPage::Below { border, .. } => border.clone(),
            ListingPage::AsRequested | ListingPage::CommonPrefixes { .. } | ListingPage::Folder => {
                None
            }
        };
        let asks_encoding = requested.query.get("encoding-type") == Some("url");
        Some(Self {
            names: Names::new(permit, grant),
            source: permit.source().cloned(), // the response outlives the permit
            tenant: permit.tenant().name.clone(),
            operation: requested.operation,
            native,
            resource,
            location,
            version_2: translated.then(|| VersionTwo::new(&requested.query)),
            page: Page::default(),
            border,
            held: Vec::new(),
            is_proven: false,
            early: asks_encoding.then(Vec::new),
            open: Vec::new(),
            stage: DocumentStage::New,
            failed: false,
            tag: Vec::new(),
            quote: None,
            leaf: None,
            text: Vec::new(),
            dropped_at: None,
        })
    }

    /// Takes the next bytes of COS's response and appends to `out` what the client gets for them.
    /// After an error nothing more may be sent: the response must be seen to be cut.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        let Some(early) = &mut self.early else {
            return self.rewrite(chunk, out);
        };
        let seen = early.len();
        if seen + chunk.len() > EARLY_BYTES {
            let text = "COS's response does not say in time how names are encoded";
            return Err(Unfit::Malformed(text));
        }
        early.extend_from_slice(chunk);
        let Some(encoded) = declared_encoding(early, seen) else {
            return Ok(());
        };
        self.decide(encoded, out)
    }

    /// The response has ended: appends what is still due, if it ended where a document ends.
    pub(crate) fn finish(&mut self, out: &mut BytesMut) -> Result<(), Unfit> {
        if self.early.is_some() {
            self.decide(false, out)?; // it is over, and has not declared that names are encoded
        }
        if self.stage == DocumentStage::Over && self.tag.is_empty() {
            return Ok(());
        }
        Err(Unfit::Malformed("COS's XML ended early"))
    }

    /// Rewrites what was held until it was known how names are encoded.
    fn decide(&mut self, encoded: bool, out: &mut BytesMut) -> Result<(), Unfit> {
        self.names.are_encoded(encoded)?;
        let early = self.early.take().unwrap_or_default();
        self.rewrite(&early, out)
    }

    fn rewrite(&mut self, mut chunk: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
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

    fn text(&mut self, text: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        if text.is_empty() || self.dropped_at.is_some() {
            return Ok(());
        }
        self.begin();
        if self.leaf.is_none() {
            if !text.trim_ascii().is_empty() {
                return Err(Unfit::Malformed(if self.open.is_empty() {
                    "COS's response is not XML"
                } else {
                    "a text between elements in COS's XML"
                }));
            }
            out.extend_from_slice(text);
            return Ok(());
        }
        if self.text.len() + text.len() > TEXT_BYTES {
            return Err(Unfit::Malformed("a text in COS's XML is too long"));
        }
        self.text.extend_from_slice(text);
        Ok(())
    }

    fn begin(&mut self) {
        if self.stage == DocumentStage::New {
            self.stage = DocumentStage::Begun;
        }
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
            [
                b'<',
                b'?',
                b'x',
                b'm',
                b'l',
                b' ' | b'\t' | b'\r' | b'\n',
                ..,
            ] if self.open.is_empty() && self.stage != DocumentStage::Over => {
                // XML has it at its very start alone (section 2.8), and COS after blanks that keep the
                // connection awake.
                if !is_utf8(tag) {
                    let text = "COS's XML says that it is in another encoding than UTF-8";
                    return Err(Unfit::Malformed(text));
                }
                if self.stage == DocumentStage::New {
                    out.extend_from_slice(tag);
                }
                self.begin();
            }
            // Comments, CDATA and DTDs, which COS does not write, would hide text from the checks.
            [b'<', b'?' | b'!', ..] => {
                return Err(Unfit::Malformed("unexpected markup in COS's XML"));
            }
            [b'<', b'/', name @ .., b'>'] => self.close(&Element::of(name, self.native)?, out)?,
            [b'<', name @ .., b'/', b'>'] => {
                let element = Element::of(name, self.native)?;
                self.start(element.clone(), out)?;
                self.close(&element, out)?;
            }
            [b'<', name @ .., b'>'] => self.start(Element::of(name, self.native)?, out)?,
            _ => return Err(Unfit::Malformed("a broken tag in COS's XML")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::S3Request;

    pub(super) fn rewrite(
        requested: S3Request<'_>,
        signature: UpstreamSignature,
        pieces: &[&[u8]],
    ) -> Result<String, Unfit> {
        let tenant = tenant();
        let permit = Permit::for_test(&tenant, requested).unwrap();
        run(&mut rewriter(&permit, signature), pieces)
    }

    pub(super) fn rewriter(
        permit: &Permit<'_, '_>,
        signature: UpstreamSignature,
    ) -> ResponseRewriter {
        let location = "https://cos.local/photos/acme/a%20b".to_owned();
        ResponseRewriter::new(permit, signature, false, location).unwrap()
    }

    pub(super) fn run(rewriter: &mut ResponseRewriter, pieces: &[&[u8]]) -> Result<String, Unfit> {
        let mut out = BytesMut::new();
        for piece in pieces {
            rewriter.push(piece, &mut out)?;
        }
        rewriter.finish(&mut out)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    /// A listing's document around `inside`, as COS writes it.
    pub(super) fn document(inside: &str) -> String {
        format!("<ListBucketResult>{inside}</ListBucketResult>")
    }

    /// What becomes of it: S3's own root.
    pub(super) fn s3(document: &str) -> String {
        document.replacen(
            '>',
            " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
            1,
        )
    }

    pub(super) const WHOLE: &str = "<IsTruncated>false</IsTruncated>";

    /// Each listing: its root, the element from which a client goes on, and a text of it.
    pub(super) const LISTINGS: [(Operation, &str, &str, &str); 5] = [
        (
            Operation::ListMultipartUploads,
            "ListMultipartUploadsResult",
            "NextKeyMarker",
            "acme/k",
        ),
        (
            Operation::ListObjectVersions,
            "ListVersionsResult",
            "NextKeyMarker",
            "acme/k",
        ),
        (
            Operation::ListObjects,
            "ListBucketResult",
            "NextMarker",
            "acme/k",
        ),
        (
            Operation::ListObjectsV2,
            "ListBucketResult",
            "NextContinuationToken",
            "t",
        ),
        (
            Operation::ListParts,
            "ListPartsResult",
            "NextPartNumberMarker",
            "7",
        ),
    ];

    #[test]
    fn a_page_that_is_no_response_of_cos_is_not_passed_on() {
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
    }

    pub(super) fn list(query: &str) -> S3Request<'_> {
        s3_request(Operation::ListObjects, "photos", "", query)
    }

    pub(super) fn rewritten(requested: S3Request<'_>, response: &str) -> String {
        rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()]).unwrap()
    }

    pub(super) const LISTING: &str = "<?xml version='1.0' encoding='utf-8' ?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>shared-1250000000</Name><Prefix>acme/</Prefix><Marker></Marker><MaxKeys>2</MaxKeys>\
        <IsTruncated>true</IsTruncated><NextMarker>acme/b &amp; c</NextMarker>\
        <NextContinuationToken>1250000000.b%20&amp;</NextContinuationToken>\
        <Contents><Key>acme/Name</Key><ETag>\"x>y\"</ETag><Size>1</Size>\
        <Owner><ID>qcs::cam::uin/100:uin/100</ID><DisplayName>100</DisplayName></Owner></Contents>\
        <CommonPrefixes><Prefix>acme/d/</Prefix></CommonPrefixes></ListBucketResult>";

    #[test]
    fn what_would_hide_text_from_the_checks_is_refused() {
        for response in [
            "<!DOCTYPE x [<!ENTITY y 'z'>]><ListBucketResult/>",
            "<ListBucketResult><Contents><Key>acme/<!-- -->x</Key></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key><![CDATA[other]]></Key></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>&other;</Key></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>acme/<b>x</b></Key></Contents></ListBucketResult>",
            "<ListBucketResult></Key>",
            "<ListBucketResult>",
            "</ListBucketResult>",
            "<R",
            "<>",
        ] {
            let refused = rewrite(
                list("prefix=acme/"),
                UpstreamSignature::S3,
                &[response.as_bytes()],
            );
            assert!(refused.is_err(), "{response}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let long_key = format!(
            "<ListBucketResult><Contents><Key>acme/{}</Key></Contents></ListBucketResult>",
            "x".repeat(9000)
        );
        let long_tag = format!(
            "<ListBucketResult a='{}'></ListBucketResult>",
            "x".repeat(2000)
        );
        let deep = format!("<ListBucketResult>{}", "<a>".repeat(40));
        for response in [long_key, long_tag, deep] {
            assert!(
                rewrite(
                    list("prefix=acme/"),
                    UpstreamSignature::S3,
                    &[response.as_bytes()]
                )
                .is_err()
            );
        }
    }

    /// The same tenant, with `photos` below a root.
    pub(super) fn rooted(
        requested: S3Request<'_>,
        signature: UpstreamSignature,
        response: &str,
    ) -> Result<String, Unfit> {
        let mut tenant = tenant();
        tenant.grants[0].root = "ro ot/".into();
        let permit = Permit::for_test(&tenant, requested).unwrap();
        run(&mut rewriter(&permit, signature), &[response.as_bytes()])
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
            // COS's own terms inside are the client's business: only what is outside is a secret.
            [before, text, after].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_split_gives_the_same_response(cuts in prop::collection::vec(0..LISTING.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, LISTING.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &LISTING.as_bytes()[w[0]..w[1]]).collect();
            for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
                let requested = || s3_request(Operation::ListObjectsV2, "photos", "", "list-type=2&prefix=acme/");
                let whole = rewrite(requested(), signature, &[LISTING.as_bytes()]).unwrap();
                prop_assert_eq!(rewrite(requested(), signature, &pieces).unwrap(), whole);
            }
        }

        /// However COS writes it and whatever it is cut into: what is outside is never shown.
        #[test]
        fn nothing_outside_is_ever_shown(
            entries in prop::collection::vec(some_entry(), 1..6), url: bool, declares: bool, cut in 1..40usize,
        ) {
            let mut tenant = tenant();
            tenant.grants[0].root = "ro ot/".into();
            let query = if url { "prefix=acme/&encoding-type=url" } else { "prefix=acme/" };
            let declares = if declares { "<EncodingType>url</EncodingType>" } else { "" };
            for (operation, root, signature) in [
                (Operation::ListObjects, "ListBucketResult", UpstreamSignature::S3),
                (Operation::ListObjectsV2, "ListBucketResult", UpstreamSignature::Cos),
                (Operation::ListObjectVersions, "ListVersionsResult", UpstreamSignature::S3),
            ] {
                let document = format!("<{root}>{WHOLE}{declares}{}</{root}>", entries.concat());
                let permit = Permit::for_test(&tenant, s3_request(operation, "photos", "", query)).unwrap();
                let mut rewriter = rewriter(&permit, signature);
                let mut out = BytesMut::new();
                let mut pieces = document.as_bytes().chunks(cut);
                if pieces.all(|piece| rewriter.push(piece, &mut out).is_ok()) {
                    let _ = rewriter.finish(&mut out);
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
