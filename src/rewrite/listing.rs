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

use std::borrow::Cow;

use bytes::BytesMut;
use memchr::{memchr, memmem, memrchr};
use quick_xml::escape::{escape, unescape};

use super::element::{Carries, Element, declares_encoding};
use super::names::{EchoedParameter, ListedName, Names, Unfit, escaped};
use super::response::{error_code, is_clean};
use super::version_two::{VersionTwo, is_translated};
use crate::config::UpstreamSignature;
use crate::encoding::percent::push_encoded_path;
use crate::s3::continuation::token_of_marker;
use crate::s3::xml::NAMESPACE;
use crate::s3::{Operation, SuccessKind};
use crate::tenant::{Grant, ListingPage, Permit};

/// Whether responses to this operation must pass a [`ResponseRewriter`].
pub(crate) fn is_streamed_anew(operation: Operation) -> bool {
    root_of(operation).is_some()
}

/// Whether the client gets another body than COS's.
pub(super) fn rewrites(operation: Operation) -> bool {
    is_streamed_anew(operation) || matches!(operation.response(), SuccessKind::Configuration(_))
}

/// The root of a response that is rewritten.
fn root_of(operation: Operation) -> Option<&'static str> {
    match operation.response() {
        SuccessKind::Document(root) => Some(root),
        SuccessKind::Configuration(_)
        | SuccessKind::Cosgate
        | SuccessKind::Empty
        | SuccessKind::Headers
        | SuccessKind::Object => None,
    }
}

/// The element from which a client goes on with the next page; `None` for what has no pages.
fn next_of(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::ListMultipartUploads | Operation::ListObjectVersions => "NextKeyMarker",
        Operation::ListObjects => "NextMarker",
        Operation::ListObjectsV2 => "NextContinuationToken",
        Operation::ListParts => "NextPartNumberMarker",
        _ => return None,
    })
}

/// The element without which a success reports nothing that was done (436/7742, 436/7746, 436/8287,
/// 436/10881).
fn proof_of(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::CompleteMultipartUpload | Operation::CopyObject | Operation::UploadPartCopy => {
            "ETag"
        }
        Operation::CreateMultipartUpload => "UploadId",
        _ => return None,
    })
}

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

/// What a listing has declared of its page.
#[derive(Debug, Default)]
struct Page {
    truncated: Option<bool>,
    /// The client has got where the next page starts.
    goes_on: bool,
    /// It has got the element that says so, which may be empty.
    has_next: bool,
    /// Keys and common prefixes.
    entries: u64,
    /// The greatest of them, decoded: where the next page starts if COS does not say.
    last: String,
}

/// What becomes of a leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
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

    fn start(&mut self, element: Element, out: &mut BytesMut) -> Result<(), Unfit> {
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
        self.failed = element.carries == Carries::Failure;
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

    fn close(&mut self, element: &Element, out: &mut BytesMut) -> Result<(), Unfit> {
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
            (Carries::Tag, _) | (_, Carries::Value) => Leaf::Value,
            (Carries::AccountHolder, Carries::Account) => Leaf::Tenant,
            (Carries::Failure, Carries::Code) => Leaf::ErrorCode,
            (Carries::Failure, Carries::Key) => Leaf::Repeated(EchoedParameter::Key),
            (Carries::Failure, Carries::Message) => Leaf::ErrorMessage,
            (Carries::Failure, Carries::Resource) => Leaf::Resource,
            (_, Carries::Bucket) => Leaf::Alias,
            // A string to sign, a host, a key id; an account's number.
            (Carries::AccountHolder | Carries::Failure, _) => Leaf::Withheld,
            (_, Carries::AccountHolder | Carries::Elements | Carries::Failure | Carries::Tag) => {
                return None;
            }
            (_, Carries::EncodingType) => Leaf::EncodingType,
            (_, Carries::Location) => Leaf::Location,
            (_, Carries::Next) => Leaf::Next,
            (_, Carries::Repeated(what)) => Leaf::Repeated(what),
            (_, Carries::Key) if is_top => Leaf::Repeated(EchoedParameter::Key),
            (_, Carries::Name) if is_top => Leaf::Alias,
            (_, Carries::Prefix) if is_top => Leaf::Repeated(EchoedParameter::Prefix),
            (_, Carries::Truncated) if is_top => Leaf::Truncated,
            // Whatever it stands in: a listing has keys and prefixes that are its own alone.
            (_, Carries::Key) => Leaf::Shown(ListedName::Key),
            (_, Carries::Prefix) => Leaf::Shown(ListedName::Prefix),
            // It may name anything, or a known one stands where nothing is known of it.
            (
                _,
                Carries::Account
                | Carries::Code
                | Carries::Message
                | Carries::Name
                | Carries::Resource
                | Carries::Truncated
                | Carries::Unknown,
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
        let is_next = element.carries != Carries::Unknown && name.starts_with("Next");
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

    /// Notes whether COS's listing goes on, and says whether the client's does.
    fn truncated(&mut self, text: &str) -> Result<&'static str, Unfit> {
        let truncated = match text {
            "true" => true,
            "false" => false,
            _ => return Err(Unfit::Malformed("COS's listing is neither whole nor not")),
        };
        if self.page.truncated.replace(truncated).is_some() {
            return Err(Unfit::Malformed(
                "COS's listing says twice whether it is whole",
            ));
        }
        // As S3 writes it: botocore takes anything but `true` for false, blanks included.
        let goes_on = truncated || self.border.is_some();
        Ok(if goes_on { "true" } else { "false" })
    }

    /// The document is about to end: a listing must be whole, or say where it goes on.
    fn end(&mut self, out: &mut BytesMut) -> Result<(), Unfit> {
        self.stage = DocumentStage::Over;
        if proof_of(self.operation).is_some() && !self.failed && !self.is_proven {
            return Err(Unfit::Malformed(
                "COS's success does not report what was done",
            ));
        }
        let Some(next) = next_of(self.operation) else {
            return Ok(());
        };
        let truncated = self.page.truncated.ok_or(Unfit::Malformed(
            "COS's listing does not say whether it is whole",
        ))?;
        let lists_objects = self.version_2.is_some() || self.operation == Operation::ListObjects;
        let marker = match &self.border {
            Some(border) if !truncated => Some(border),
            // S3 itself says it with a delimiter only, and clients then take the last key: what is right
            // for one of them is right for all.
            _ => Some(&self.page.last).filter(|last| {
                truncated && !self.page.goes_on && lists_objects && !last.is_empty()
            }),
        };
        if truncated && !self.page.goes_on && marker.is_none() {
            return Err(Unfit::NoNextPage);
        }
        for (name, text) in self.held.iter().filter(|_| truncated) {
            put_leaf(out, name, text);
        }
        if let Some(marker) = marker {
            let text = if self.version_2.is_some() {
                token_of_marker(marker)
            } else {
                self.names.written(marker)
            };
            put_leaf(out, next, &text);
        }
        if let Some(version_2) = &self.version_2 {
            put_leaf(out, "KeyCount", &self.page.entries.to_string());
            if let Some(token) = &version_2.token {
                put_leaf(out, "ContinuationToken", &escape(token.as_str()));
            }
            if version_2.starts_after {
                put_leaf(
                    out,
                    "StartAfter",
                    &self.names.repeated(EchoedParameter::StartAfter),
                );
            }
        }
        Ok(())
    }

    fn is_clean(&self, text: &str) -> bool {
        is_clean(text, self.names.grant(), self.source.as_ref())
    }
}

/// What a response says of how its names are encoded, once that stands in `bytes`, of which the first
/// `seen` have been looked at before. The rewriting itself sees to it that it was read right.
fn declared_encoding(bytes: &[u8], seen: usize) -> Option<bool> {
    let from = seen.saturating_sub(TAG_BYTES);
    let recent = bytes.get(from..)?;
    memmem::find_iter(recent, b"Encoding").find_map(|at| {
        let (before, rest) = recent.split_at_checked(at)?;
        let start = memrchr(b'<', before)? + 1;
        let prefix = before.get(start..)?;
        let end = memchr(b'>', rest)?;
        let (name, text) = rest.split_at_checked(end)?;
        let is_start = prefix.is_empty() || (prefix.ends_with(b":") && !prefix.contains(&b'>'));
        if !is_start || prefix.starts_with(b"/") || !declares_encoding(name) {
            return None;
        }
        if name.ends_with(b"/") {
            return Some(false);
        }
        let text = text.get(1..)?;
        Some(text.get(..memchr(b'<', text)?)? == b"url")
    })
}

/// A name as COS wrote it, in COS's own escaping where nothing was taken off.
fn as_shown<'t>(raw: &'t str, text: &str, written: &str) -> Cow<'t, str> {
    if written == text {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(escaped(written))
    }
}

/// Whether an XML declaration leaves the names in the response to the client as they are read here.
fn is_utf8(declaration: &[u8]) -> bool {
    let Some(at) = memmem::find(declaration, b"encoding") else {
        return true; // section 4.3.3
    };
    let stated = declaration.get(at..).unwrap_or_default();
    let mut quoted = stated.split(|byte| matches!(byte, b'"' | b'\''));
    let name = quoted.nth(1).unwrap_or_default();
    name.eq_ignore_ascii_case(b"utf-8")
}

fn text_of(raw: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(raw).map_err(|_| Unfit::Malformed("COS's XML is not UTF-8"))
}

fn unescaped(raw: &str) -> Result<Cow<'_, str>, Unfit> {
    unescape(raw).map_err(|_| Unfit::Malformed("an unknown entity in COS's XML"))
}

fn put_leaf(out: &mut BytesMut, name: &str, text: &str) {
    put_tag(out, "<", name, "");
    out.extend_from_slice(text.as_bytes());
    put_tag(out, "</", name, "");
}

fn put_tag(out: &mut BytesMut, start: &str, name: &str, attributes: &str) {
    for piece in [start, name, attributes, ">"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::S3Request;

    fn rewrite(
        requested: S3Request<'_>,
        signature: UpstreamSignature,
        pieces: &[&[u8]],
    ) -> Result<String, Unfit> {
        let tenant = tenant();
        let permit = Permit::for_test(&tenant, requested).unwrap();
        run(&mut rewriter(&permit, signature), pieces)
    }

    fn rewriter(permit: &Permit<'_, '_>, signature: UpstreamSignature) -> ResponseRewriter {
        let location = "https://cos.local/photos/acme/a%20b".to_owned();
        ResponseRewriter::new(permit, signature, false, location).unwrap()
    }

    fn run(rewriter: &mut ResponseRewriter, pieces: &[&[u8]]) -> Result<String, Unfit> {
        let mut out = BytesMut::new();
        for piece in pieces {
            rewriter.push(piece, &mut out)?;
        }
        rewriter.finish(&mut out)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    /// A listing's document around `inside`, as COS writes it.
    fn document(inside: &str) -> String {
        format!("<ListBucketResult>{inside}</ListBucketResult>")
    }

    /// What becomes of it: S3's own root.
    fn s3(document: &str) -> String {
        document.replacen(
            '>',
            " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
            1,
        )
    }

    const WHOLE: &str = "<IsTruncated>false</IsTruncated>";

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

    /// Each listing: its root, the element from which a client goes on, and a text of it.
    const LISTINGS: [(Operation, &str, &str, &str); 5] = [
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
    fn a_listing_that_does_not_say_where_it_goes_on_is_cut_off_before_its_end() {
        for (operation, root, next, text) in LISTINGS {
            let key = if operation == Operation::ListParts {
                "acme/k"
            } else {
                ""
            };
            let outcome = |inside: &str| {
                let requested = s3_request(operation, "photos", key, "prefix=acme/");
                let response = format!("<{root}>{inside}</{root}>");
                rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()])
            };
            let more = "<IsTruncated>true</IsTruncated>";
            let with_next = format!("{more}<{next}>{text}</{next}>");
            assert!(outcome(&with_next).is_ok(), "{operation:?}");
            assert!(outcome(WHOLE).is_ok(), "{operation:?}");
            for silent in [
                more.to_owned(),
                format!("{more}<{next}></{next}>"),
                format!("{more}<{next}/>"),
                format!("{more}<Part><{next}>{text}</{next}></Part>"),
                format!("{more}<Following>{text}</Following>"),
            ] {
                assert_eq!(outcome(&silent), Err(Unfit::NoNextPage), "{silent}");
            }
            for doubtful in [
                format!("<{next}>{text}</{next}>"),
                format!("<Part>{WHOLE}</Part>"),
                "<IsTruncated/>".to_owned(),
                "<IsTruncated>no</IsTruncated>".to_owned(),
                "<IsTruncated>True</IsTruncated>".to_owned(),
                format!("{with_next}<{next}>{text}</{next}>"),
                format!("{with_next}<{next}>acme/z</{next}>"),
                format!("{WHOLE}{WHOLE}"),
            ] {
                let outcome = outcome(&doubtful);
                assert!(matches!(outcome, Err(Unfit::Malformed(_))), "{doubtful}");
            }
        }
        let parts = s3_request(Operation::ListParts, "photos", "acme/k", "uploadId=u");
        let start = "<ListPartsResult><IsTruncated>true</IsTruncated>\
            <NextPartNumberMarker>0</NextPartNumberMarker></ListPartsResult>";
        let outcome = rewrite(parts, UpstreamSignature::S3, &[start.as_bytes()]);
        assert_eq!(outcome, Err(Unfit::NoNextPage));
    }

    #[test]
    fn a_page_that_ends_where_a_granted_prefix_does_leads_to_the_next() {
        let two = |operation, root: &str, query: &str, inside: &str| {
            let mut tenant = tenant();
            let next = crate::config::PrefixPattern::StartsWith("b &/".into());
            tenant.grants[0].prefixes.push(next);
            let permit =
                Permit::for_test(&tenant, s3_request(operation, "photos", "", query)).unwrap();
            let response = format!("<{root}>{inside}</{root}>");
            let shown = run(
                &mut rewriter(&permit, UpstreamSignature::S3),
                &[response.as_bytes()],
            );
            shown.map(|shown| shown.split_once('>').unwrap().1.to_owned())
        };
        let key = "<Contents><Key>acme/k</Key></Contents>";
        let list = |inside: &str| {
            let query = "prefix=&marker=a";
            two(Operation::ListObjects, "ListBucketResult", query, inside).unwrap()
        };
        let requested = "<Prefix>acme/</Prefix><Marker></Marker>";
        let stated = "<Prefix></Prefix><Marker>a</Marker>";
        // What a store says of a page that it takes for the last is not the last word.
        for last in ["", "<NextMarker/>", "<NextMarker>acme/k</NextMarker>"] {
            let shown = list(&format!("{requested}{last}{WHOLE}{key}"));
            let end = "<NextMarker>acme0</NextMarker></ListBucketResult>";
            assert_eq!(
                shown,
                format!("{stated}<IsTruncated>true</IsTruncated>{key}{end}")
            );
        }
        let more = "<IsTruncated>true</IsTruncated>";
        let next = "<NextMarker>acme/k</NextMarker>";
        for (before, after) in [(next, ""), ("", next), ("", "")] {
            let shown = list(&format!("{requested}{before}{more}{after}{key}"));
            assert_eq!(
                shown,
                format!("{stated}{more}{key}{next}</ListBucketResult>")
            );
        }
        let query = "list-type=2";
        let shown = two(Operation::ListObjectsV2, "ListBucketResult", query, WHOLE).unwrap();
        let token = token_of_marker("acme0");
        assert!(shown.contains(&format!(
            "<NextContinuationToken>{token}</NextContinuationToken>"
        )));
        let root = "ListMultipartUploadsResult";
        let ids = "<NextKeyMarker>acme/k</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>";
        let uploads = |inside: &str| two(Operation::ListMultipartUploads, root, "uploads", inside);
        let shown = uploads(&format!("{ids}{WHOLE}")).unwrap();
        assert!(
            shown.contains("<NextKeyMarker>acme0</NextKeyMarker>"),
            "{shown}"
        );
        assert!(!shown.contains("NextUploadIdMarker"), "{shown}");
        assert!(uploads(&format!("{more}{ids}")).unwrap().contains(ids));
        assert_eq!(uploads(more), Err(Unfit::NoNextPage));
        let twice = uploads(&format!(
            "{ids}<NextUploadIdMarker>v</NextUploadIdMarker>{more}"
        ));
        assert!(matches!(twice, Err(Unfit::Malformed(_))), "{twice:?}");
        let outside = two(
            Operation::ListObjects,
            "ListBucketResult",
            "",
            &format!("{WHOLE}<Contents><Key>acmes/k</Key></Contents>"),
        );
        assert_eq!(outside, Err(Unfit::OutOfScope));
    }

    #[test]
    fn a_listing_says_it_is_truncated_as_every_client_reads_it() {
        for stated in [" true ", "\ntrue\n", "&#116;rue", "true"] {
            let response = |stated: &str| {
                document(&format!(
                    "<IsTruncated>{stated}</IsTruncated><NextMarker>acme/k</NextMarker>"
                ))
            };
            let shown = rewritten(list("prefix=acme/"), &response(stated));
            assert_eq!(shown, s3(&response("true")));
        }
        let twice = "<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>\
            <NextContinuationToken>t</NextContinuationToken>";
        let requested = s3_request(Operation::ListObjectsV2, "photos", "", "prefix=acme/");
        let outcome = rewrite(
            requested,
            UpstreamSignature::S3,
            &[document(twice).as_bytes()],
        );
        assert!(matches!(outcome, Err(Unfit::Malformed(_))), "{outcome:?}");
    }

    #[test]
    fn a_success_that_does_not_tell_what_was_done_is_none() {
        for (operation, root, proof) in [
            (
                Operation::CompleteMultipartUpload,
                "CompleteMultipartUploadResult",
                "ETag",
            ),
            (Operation::CopyObject, "CopyObjectResult", "ETag"),
            (Operation::UploadPartCopy, "CopyPartResult", "ETag"),
            (
                Operation::CreateMultipartUpload,
                "InitiateMultipartUploadResult",
                "UploadId",
            ),
        ] {
            let outcome = |inside: &str| {
                let copy_source = operation
                    .copy_source_action()
                    .map(|_| crate::s3::CopySource {
                        bucket: "public".into(),
                        key: crate::s3::ObjectKey::from_decoded("y".into()).unwrap(),
                        version_id: None,
                    });
                let requested = S3Request {
                    copy_source,
                    ..s3_request(operation, "photos", "acme/k", "uploadId=u")
                };
                let response = format!("<{root}>{inside}</{root}>");
                rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()])
            };
            assert!(outcome(&format!("<{proof}>\"x\"</{proof}>")).is_ok());
            for silent in [
                String::new(),
                "<LastModified>2024-01-01T00:00:00Z</LastModified>".to_owned(),
                format!("<{proof}/>"),
                format!("<{proof}>\"\"</{proof}>"),
                format!("<{proof}>&quot;&quot;</{proof}>"),
                format!("<Part><{proof}>x</{proof}></Part>"),
            ] {
                let outcome = outcome(&silent);
                assert!(
                    matches!(outcome, Err(Unfit::Malformed(_))),
                    "{root} {silent}"
                );
            }
        }
    }

    #[test]
    fn a_truncated_listing_of_the_first_version_always_says_where_it_goes_on() {
        let more = "<IsTruncated>true</IsTruncated>";
        let entries = "<Contents><Key>acme/b&amp;</Key></Contents>\
            <CommonPrefixes><Prefix>acme/a/</Prefix></CommonPrefixes>";
        for next in ["", "<NextMarker/>"] {
            let response = document(&format!("{more}{next}{entries}"));
            let with_next = format!("{more}{entries}<NextMarker>acme/b&amp;</NextMarker>");
            let shown = rewritten(list("prefix=acme/&delimiter=/"), &response);
            assert_eq!(shown, s3(&document(&with_next)));
        }
    }

    #[test]
    fn names_are_read_as_the_response_declares_and_not_as_was_requested() {
        let names = "<Prefix>acme/</Prefix><Contents><Key>acme/50%25 %</Key></Contents>\
            <NextMarker>acme/50%25 %</NextMarker>";
        let encoded = "<Prefix>acme/</Prefix><Contents><Key>acme%2F50%25+%20</Key></Contents>\
            <NextMarker>acme/50%25</NextMarker>";
        let stated = "<EncodingType>url</EncodingType>";
        for query in ["prefix=acme/", "prefix=acme/&encoding-type=url"] {
            for response in [
                document(&format!("{WHOLE}{names}")),
                document(&format!("{WHOLE}{stated}{encoded}")),
            ] {
                assert_eq!(rewritten(list(query), &response), s3(&response), "{query}");
            }
            // COS writes it so where it has nothing to say.
            let empty = document(&format!("{WHOLE}<Encoding-Type></Encoding-Type>{names}"));
            let shown = rewritten(list(query), &empty);
            assert_eq!(shown, s3(&document(&format!("{WHOLE}{names}"))));
        }
        // Declared at the end, as some stores do: whoever requested it has waited.
        let late = document(&format!(
            "{WHOLE}{encoded}<a:EncodingType >url</a:EncodingType>"
        ));
        let plain = late.replace("a:", "").replace("Type >", "Type>");
        let requested = || list("prefix=acme/&encoding-type=url");
        for size in [1, 7, 4096] {
            let pieces: Vec<_> = late.as_bytes().chunks(size).collect();
            let shown = rewrite(requested(), UpstreamSignature::S3, &pieces).unwrap();
            assert_eq!(shown, s3(&plain));
        }
        let late = late.replace("%2F", "/");
        let unrequested = rewrite(
            list("prefix=acme/"),
            UpstreamSignature::S3,
            &[late.as_bytes()],
        );
        assert!(
            matches!(unrequested, Err(Unfit::Malformed(_))),
            "{unrequested:?}"
        );
        // Only the response's own element says it, not a text that looks like one.
        let text = "<Contents><Key>acme/x:EncodingType>url</Key></Contents>";
        let response = document(&format!("{WHOLE}{text}"));
        assert_eq!(rewritten(requested(), &response), s3(&response));
        let unknown = document(&format!("{WHOLE}<EncodingType>base64</EncodingType>"));
        assert!(rewrite(requested(), UpstreamSignature::S3, &[unknown.as_bytes()]).is_err());
    }

    #[test]
    fn what_is_held_until_the_encoding_is_declared_has_an_end() {
        let tenant = tenant();
        let requested = list("prefix=acme/&encoding-type=url");
        let permit = Permit::for_test(&tenant, requested).unwrap();
        let mut rewriter = rewriter(&permit, UpstreamSignature::S3);
        let mut out = BytesMut::new();
        let piece = vec![b' '; 1 << 16];
        let taken = (0..).take_while(|_| rewriter.push(&piece, &mut out).is_ok());
        assert_eq!(taken.count() * piece.len(), EARLY_BYTES);
        assert!(out.is_empty());
    }

    #[test]
    fn the_root_leaves_as_s3_writes_it_whatever_the_store_writes() {
        let expected = s3(&document(WHOLE));
        for root in [
            "ListBucketResult",
            "ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
            "ListBucketResult xmlns=\"http://www.qcloud.com/document/product/436/7734\" a=\"1250000000\"",
            "s3:ListBucketResult xmlns:s3='http://s3.amazonaws.com/doc/2006-03-01/'",
        ] {
            let name = root.split(' ').next().unwrap();
            let inside = if name.starts_with("s3:") {
                WHOLE.replace("Is", "s3:Is")
            } else {
                WHOLE.to_owned()
            };
            let response = format!("<{root}>{inside}</{name}>");
            assert_eq!(
                rewritten(list("prefix=acme/"), &response),
                expected,
                "{root}"
            );
            let tenant = tenant();
            let permit = Permit::for_test(&tenant, list("prefix=acme/")).unwrap();
            let mut native =
                ResponseRewriter::new(&permit, UpstreamSignature::S3, true, String::new()).unwrap();
            let shown = run(&mut native, &[response.as_bytes()]).unwrap();
            assert_eq!(shown, document(WHOLE), "{root}");
        }
    }

    #[test]
    fn a_response_to_something_else_is_not_read_as_an_empty_one() {
        for (operation, root, _, _) in LISTINGS {
            let key = if operation == Operation::ListParts {
                "acme/k"
            } else {
                ""
            };
            for response in [
                "<CopyObjectResult></CopyObjectResult>".to_owned(),
                "<Error><Code>InternalError</Code></Error>".to_owned(),
                format!("<?xml version='1.0' encoding='GBK'?><{root}>{WHOLE}</{root}>"),
                format!(
                    " <?xml version=\"1.0\" encoding = \"ISO-8859-1\" ?><{root}>{WHOLE}</{root}>"
                ),
                format!("<{root}>{WHOLE}</{root}><{root}>{WHOLE}</{root}>"),
                format!("<{root}>{WHOLE}shared</{root}>"),
                " ".to_owned(),
                String::new(),
            ] {
                let requested = s3_request(operation, "photos", key, "prefix=acme/");
                let outcome = rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()]);
                assert!(matches!(outcome, Err(Unfit::Malformed(_))), "{response}");
            }
        }
    }

    #[test]
    fn tags_are_the_clients_own_texts() {
        let response = "<Tagging><TagSet><Tag><Key>a.b%</Key><Value>1250000000</Value></Tag>\
            <Tag><Key>token</Key><Value></Value></Tag></TagSet></Tagging>";
        let requested = s3_request(Operation::GetObjectTagging, "photos", "acme/k", "tagging");
        assert_eq!(rewritten(requested, response), s3(response));
    }

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

    fn list(query: &str) -> S3Request<'_> {
        s3_request(Operation::ListObjects, "photos", "", query)
    }

    fn rewritten(requested: S3Request<'_>, response: &str) -> String {
        rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()]).unwrap()
    }

    const LISTING: &str = "<?xml version='1.0' encoding='utf-8' ?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>shared-1250000000</Name><Prefix>acme/</Prefix><Marker></Marker><MaxKeys>2</MaxKeys>\
        <IsTruncated>true</IsTruncated><NextMarker>acme/b &amp; c</NextMarker>\
        <NextContinuationToken>1250000000.b%20&amp;</NextContinuationToken>\
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

    /// The same tenant, with `photos` below a root.
    fn rooted(
        requested: S3Request<'_>,
        signature: UpstreamSignature,
        response: &str,
    ) -> Result<String, Unfit> {
        let mut tenant = tenant();
        tenant.grants[0].root = "ro ot/".into();
        let permit = Permit::for_test(&tenant, requested).unwrap();
        run(&mut rewriter(&permit, signature), &[response.as_bytes()])
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
    fn encoded_names_are_the_clients_own_too() {
        let response = "<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>\
            <Prefix>ro%20ot%2Facme%2F</Prefix><Marker>ro%20ot%2F</Marker>\
            <NextMarker>ro+ot/acme/%26</NextMarker><Contents><Key>ro%20ot/acme/a%2Bb+c</Key></Contents>\
            <CommonPrefixes><Prefix>ro%20ot/acme%2Fd/</Prefix></CommonPrefixes></ListBucketResult>";
        let requested = s3_request(
            Operation::ListObjects,
            "photos",
            "",
            "prefix=acme/&encoding-type=url",
        );
        assert_eq!(
            rooted(requested, UpstreamSignature::S3, response).unwrap(),
            s3(
                "<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>\
             <Prefix>acme/</Prefix><Marker></Marker>\
             <NextMarker>acme/%26</NextMarker><Contents><Key>acme/a%2Bb+c</Key></Contents>\
             <CommonPrefixes><Prefix>acme%2Fd/</Prefix></CommonPrefixes></ListBucketResult>"
            )
        );
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

    #[test]
    fn the_first_versions_listing_becomes_the_seconds() {
        let requested = || {
            let query = "list-type=2&prefix=acme/&max-keys=2&start-after=acme/0%26";
            s3_request(Operation::ListObjectsV2, "photos", "", query)
        };

        let response = rewrite(requested(), UpstreamSignature::Cos, &[LISTING.as_bytes()]).unwrap();

        let token = token_of_marker("acme/b & c");
        assert!(response.contains(&format!(
            "<NextContinuationToken>{token}</NextContinuationToken>"
        )));
        assert!(response.ends_with(
            "</CommonPrefixes><KeyCount>2</KeyCount><StartAfter>acme/0&amp;</StartAfter></ListBucketResult>"
        ));
        for gone in ["Marker", "Owner", "1250000000"] {
            assert!(!response.contains(gone), "{gone}");
        }
    }

    #[test]
    fn an_empty_next_marker_is_no_token() {
        for next in ["<NextMarker/>", "<NextMarker></NextMarker>"] {
            let response = format!(
                "<ListBucketResult>{next}<IsTruncated>true</IsTruncated>\
                 <Contents><Key>acme/b</Key></Contents></ListBucketResult>"
            );
            let query = "list-type=2&prefix=acme/";
            let requested = s3_request(Operation::ListObjectsV2, "photos", "", query);
            let response =
                rewrite(requested, UpstreamSignature::Cos, &[response.as_bytes()]).unwrap();
            let token = token_of_marker("acme/b");
            let token = format!("<NextContinuationToken>{token}</NextContinuationToken>");
            assert_eq!(response.matches("NextContinuationToken").count(), 2);
            assert!(response.contains(&token), "{response}");
        }
    }

    #[test]
    fn a_truncated_listing_always_says_where_the_next_page_starts() {
        let response = "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <Contents><Key>acme%2Fb</Key></Contents><CommonPrefixes><Prefix>acme%2Fa%2F</Prefix>\
            </CommonPrefixes></ListBucketResult>";
        let query = "list-type=2&prefix=acme/&encoding-type=url";
        let requested = s3_request(Operation::ListObjectsV2, "photos", "", query);

        let response = rewrite(requested, UpstreamSignature::Cos, &[response.as_bytes()]).unwrap();

        let token = token_of_marker("acme/b");
        assert!(response.contains(&format!(
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
