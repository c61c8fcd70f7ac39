//! The XML bodies that clients send.

use super::document::{Document, Writer, malformed, once};
use crate::error::{Code, S3Error};
use crate::s3::Operation;
use crate::s3::conditions::in_body;
use crate::s3::query::MAX_PART_NUMBER;

/// The most keys that one `DeleteObjects` may name.
pub(crate) const MAX_DELETED: usize = 1000;

/// The most tags of an object.
pub(crate) const MAX_TAGS: usize = 10;

/// The longest tag key and value, in characters (S3's limits).
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// The body of `DeleteObjects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Report failures only.
    pub quiet: bool,
    /// What to delete: 1 to 1000.
    pub objects: Vec<DeleteObject>,
}

/// One object of a [`DeleteRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteObject {
    /// The key as it stands there, not checked yet: one bad key gets an error of its own.
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
}

/// The body of `CompleteMultipartUpload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteRequest {
    /// The parts, by rising number: at least one.
    pub parts: Vec<Part>,
}

/// One part of a [`CompleteRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `PartNumber`, 1 to 10000.
    pub number: u16,
    /// `ETag`, in quotes or not, as the client had it.
    pub etag: String,
}

/// The body of `PutObjectTagging`: each key once, in the client's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagging {
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

impl DeleteRequest {
    /// Parses a body of at most `limit` bytes.
    pub fn parse(body: &[u8], limit: usize) -> Result<Self, S3Error> {
        let mut document = Document::open(body, limit, "Delete")?;
        let mut quiet = None;
        let mut objects = Vec::new();
        while let Some(name) = document.child()? {
            match name.as_str() {
                "Quiet" => once(&mut quiet, "Quiet", flag(&document.text()?)?)?,
                "Object" if objects.len() == MAX_DELETED => {
                    return Err(malformed(&format!(
                        "it names more than {MAX_DELETED} objects"
                    )));
                }
                "Object" => objects.push(DeleteObject::read(&mut document)?),
                _ => return Err(unknown(&name)),
            }
        }
        document.close()?;
        if objects.is_empty() {
            return Err(malformed("it names no object"));
        }
        Ok(Self {
            quiet: quiet.unwrap_or(false),
            objects,
        })
    }

    /// The body for COS.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::with_bare_root("Delete");
        writer.element("Quiet", if self.quiet { "true" } else { "false" });
        for object in &self.objects {
            writer.open("Object");
            writer.element("Key", &object.key);
            writer.element_if("VersionId", object.version_id.as_deref());
            writer.close("Object");
        }
        writer.finish("Delete")
    }
}

impl DeleteObject {
    fn read(document: &mut Document<'_>) -> Result<Self, S3Error> {
        let (mut key, mut version_id) = (None, None);
        while let Some(name) = document.child()? {
            match name.as_str() {
                "Key" => once(&mut key, "Key", document.text()?)?,
                "VersionId" => once(&mut version_id, "VersionId", document.text()?)?,
                // Left out, the object would be deleted whatever it is by now.
                "ETag" | "LastModifiedTime" | "Size" => {
                    let element = format!("<{name}>");
                    return Err(in_body(Operation::DeleteObjects, &element));
                }
                _ => return Err(unknown(&name)),
            }
        }
        // Tools send an empty VersionId for none.
        let version_id = version_id.filter(|id| !id.is_empty());
        Ok(Self {
            key: key.ok_or_else(|| malformed("an Object has no Key"))?,
            version_id,
        })
    }
}

impl CompleteRequest {
    /// Parses a body of at most `limit` bytes. Checksums of parts are left out: COS has none of those
    /// sums.
    pub fn parse(body: &[u8], limit: usize) -> Result<Self, S3Error> {
        let mut document = Document::open(body, limit, "CompleteMultipartUpload")?;
        let mut parts: Vec<Part> = Vec::new();
        while let Some(name) = document.child()? {
            if name != "Part" {
                return Err(unknown(&name));
            }
            let part = Part::read(&mut document)?;
            if parts.last().is_some_and(|last| last.number >= part.number) {
                return Err(S3Error::new(
                    Code::InvalidPartOrder,
                    "Parts must be listed by rising part number, each once.",
                ));
            }
            parts.push(part);
        }
        document.close()?;
        if parts.is_empty() {
            return Err(malformed("it names no part"));
        }
        Ok(Self { parts })
    }

    /// The body for COS.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::with_bare_root("CompleteMultipartUpload");
        for part in &self.parts {
            writer.open("Part");
            writer.element("PartNumber", &part.number.to_string());
            writer.element("ETag", &part.etag);
            writer.close("Part");
        }
        writer.finish("CompleteMultipartUpload")
    }
}

impl Part {
    fn read(document: &mut Document<'_>) -> Result<Self, S3Error> {
        let (mut number, mut etag) = (None, None);
        while let Some(name) = document.child()? {
            match name.as_str() {
                "PartNumber" => once(&mut number, "PartNumber", part_number(&document.text()?)?)?,
                "ETag" => once(&mut etag, "ETag", document.text()?.trim().to_owned())?,
                _ if name.starts_with("Checksum") => document.skip()?,
                _ => return Err(unknown(&name)),
            }
        }
        Ok(Self {
            number: number.ok_or_else(|| malformed("a Part has no PartNumber"))?,
            etag: etag
                .filter(|etag| !etag.is_empty())
                .ok_or_else(|| malformed("a Part has no ETag"))?,
        })
    }
}

impl Tagging {
    /// Parses a body of at most `limit` bytes.
    pub fn parse(body: &[u8], limit: usize) -> Result<Self, S3Error> {
        let mut document = Document::open(body, limit, "Tagging")?;
        let mut set = None;
        while let Some(name) = document.child()? {
            match name.as_str() {
                "TagSet" => once(&mut set, "TagSet", tag_set(&mut document)?)?,
                _ => return Err(unknown(&name)),
            }
        }
        document.close()?;
        Ok(Self {
            tags: set.ok_or_else(|| malformed("it has no TagSet"))?,
        })
    }

    /// The body for COS.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::with_bare_root("Tagging");
        writer.open("TagSet");
        for (key, value) in &self.tags {
            writer.open("Tag");
            writer.element("Key", key);
            writer.element("Value", value);
            writer.close("Tag");
        }
        writer.close("TagSet");
        writer.finish("Tagging")
    }
}

fn tag_set(document: &mut Document<'_>) -> Result<Vec<(String, String)>, S3Error> {
    let invalid = |message: String| S3Error::new(Code::InvalidTag, message);
    let mut tags: Vec<(String, String)> = Vec::new();
    while let Some(name) = document.child()? {
        if name != "Tag" {
            return Err(unknown(&name));
        }
        if tags.len() == MAX_TAGS {
            return Err(invalid(format!("An object has at most {MAX_TAGS} tags.")));
        }
        let (key, value) = tag(document)?;
        if key.is_empty()
            || key.chars().count() > MAX_TAG_KEY
            || value.chars().count() > MAX_TAG_VALUE
        {
            return Err(invalid(format!(
                "A tag's key has 1 to {MAX_TAG_KEY} characters, its value up to {MAX_TAG_VALUE}."
            )));
        }
        if tags.iter().any(|(earlier, _)| *earlier == key) {
            return Err(invalid("Two tags have the same key.".to_owned()));
        }
        tags.push((key, value));
    }
    Ok(tags)
}

fn tag(document: &mut Document<'_>) -> Result<(String, String), S3Error> {
    let (mut key, mut value) = (None, None);
    while let Some(name) = document.child()? {
        match name.as_str() {
            "Key" => once(&mut key, "Key", document.text()?)?,
            "Value" => once(&mut value, "Value", document.text()?)?,
            _ => return Err(unknown(&name)),
        }
    }
    key.zip(value)
        .ok_or_else(|| malformed("a Tag needs a Key and a Value"))
}

fn flag(text: &str) -> Result<bool, S3Error> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(malformed("Quiet is neither true nor false")),
    }
}

fn part_number(text: &str) -> Result<u16, S3Error> {
    let digits =
        Some(text.trim()).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits
        .and_then(|digits| digits.parse().ok())
        .filter(|number| (1..=MAX_PART_NUMBER).contains(number));
    number.ok_or_else(|| {
        S3Error::new(
            Code::InvalidArgument,
            format!("A part number is a whole number, 1 to {MAX_PART_NUMBER}."),
        )
    })
}

pub(super) fn unknown(name: &str) -> S3Error {
    malformed(&format!(
        "the element {} does not belong there",
        crate::s3::query::shown(name)
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 2 << 20;

    fn deleted(inner: &str) -> Result<DeleteRequest, Code> {
        DeleteRequest::parse(format!("<Delete>{inner}</Delete>").as_bytes(), LIMIT)
            .map_err(|error| error.code())
    }

    fn completed(inner: &str) -> Result<CompleteRequest, Code> {
        let xml = format!("<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>");
        CompleteRequest::parse(xml.as_bytes(), LIMIT).map_err(|error| error.code())
    }

    fn tagged(inner: &str) -> Result<Tagging, Code> {
        let xml = format!("<Tagging><TagSet>{inner}</TagSet></Tagging>");
        Tagging::parse(xml.as_bytes(), LIMIT).map_err(|error| error.code())
    }

    fn object(key: &str, version_id: Option<&str>) -> DeleteObject {
        DeleteObject {
            key: key.to_owned(),
            version_id: version_id.map(str::to_owned),
        }
    }

    #[test]
    fn a_delete_names_keys_and_versions() {
        let xml = "<Object><Key> a&amp;b </Key></Object>\n<Quiet>true</Quiet><Object><VersionId>v</VersionId><Key>c</Key></Object>";
        let request = deleted(xml).unwrap();
        assert!(request.quiet);
        assert_eq!(
            request.objects,
            [object(" a&b ", None), object("c", Some("v"))]
        );
        assert_eq!(
            deleted("<Object><Key>c</Key><VersionId/></Object>")
                .unwrap()
                .objects,
            [object("c", None)]
        );
    }

    #[test]
    fn a_doubtful_delete_is_refused() {
        for xml in [
            "",
            "<Object/>",
            "<Object><Key>a</Key><Key>b</Key></Object>",
            "<Object><Key>a</Key><key>b</key></Object>",
            "<Object><Key>a<Key>b</Key></Key></Object>",
            "<Object><Key>a<!-- c --></Key></Object>",
            "<Quiet>1</Quiet>",
            "<Quiet>true</Quiet><Quiet>false</Quiet><Object><Key>a</Key></Object>",
            "<Object><Key>&x;</Key></Object>",
            "<Object><Key>a</Key>b</Object>",
            "<Other/>",
            "</Delete><Delete>",
        ] {
            assert_eq!(deleted(xml), Err(Code::MalformedXML), "{xml}");
        }
        for condition in ["ETag", "LastModifiedTime", "Size"] {
            let xml = format!("<Object><Key>a</Key><{condition}>1</{condition}></Object>");
            assert_eq!(deleted(&xml), Err(Code::NotImplemented), "{condition}");
        }
        assert!(deleted(&"<Object><Key>a</Key></Object>".repeat(MAX_DELETED)).is_ok());
        assert_eq!(
            deleted(&"<Object><Key>a</Key></Object>".repeat(MAX_DELETED + 1)),
            Err(Code::MalformedXML)
        );
    }

    #[test]
    fn parts_keep_number_and_etag_alone() {
        let xml = "<Part><ETag>&quot;e1&quot;</ETag><PartNumber> 1 </PartNumber><ChecksumCRC32>c</ChecksumCRC32></Part>\
                   <Part><PartNumber>10000</PartNumber><ETag>e2</ETag></Part>";
        let request = completed(xml).unwrap();
        assert_eq!(
            request
                .parts
                .iter()
                .map(|part| (part.number, part.etag.as_str()))
                .collect::<Vec<_>>(),
            [(1, "\"e1\""), (10_000, "e2")]
        );
        assert!(!request.to_xml().contains("Checksum"));
    }

    #[test]
    fn doubtful_parts_are_refused() {
        let part =
            |number: &str| format!("<Part><PartNumber>{number}</PartNumber><ETag>e</ETag></Part>");
        for numbers in [["2", "1"], ["1", "1"]] {
            assert_eq!(
                completed(&numbers.map(part).concat()),
                Err(Code::InvalidPartOrder)
            );
        }
        for number in ["0", "10001", "-1", "+1", "x", "", "99999999999"] {
            assert_eq!(
                completed(&part(number)),
                Err(Code::InvalidArgument),
                "{number}"
            );
        }
        for xml in [
            "",
            "<Part/>",
            "<Part><PartNumber>1</PartNumber></Part>",
            "<Part><ETag>e</ETag></Part>",
            "<Other/>",
        ] {
            assert_eq!(completed(xml), Err(Code::MalformedXML), "{xml}");
        }
        let twice =
            "<Part><PartNumber>1</PartNumber><PartNumber>2</PartNumber><ETag>e</ETag></Part>";
        assert_eq!(completed(twice), Err(Code::MalformedXML));
    }

    #[test]
    fn tags_are_few_and_each_key_is_there_once() {
        let tag = |key: usize| format!("<Tag><Key>k{key}</Key><Value>v</Value></Tag>");
        assert_eq!(tagged("").unwrap().tags, []);
        assert_eq!(
            tagged(&tag(1)).unwrap().tags,
            [("k1".to_owned(), "v".to_owned())]
        );
        let many = |count: usize| (0..count).map(tag).collect::<String>();
        assert!(tagged(&many(MAX_TAGS)).is_ok());
        assert_eq!(tagged(&many(MAX_TAGS + 1)), Err(Code::InvalidTag));
        assert_eq!(tagged(&[tag(1), tag(1)].concat()), Err(Code::InvalidTag));
        assert_eq!(
            tagged("<Tag><Key></Key><Value>v</Value></Tag>"),
            Err(Code::InvalidTag)
        );
        assert_eq!(tagged("<Tag><Key>k</Key></Tag>"), Err(Code::MalformedXML));
        assert_eq!(
            Tagging::parse(b"<Tagging/>", LIMIT).unwrap_err().code(),
            Code::MalformedXML
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn what_is_written_for_cos_reads_the_same(
            keys in proptest::collection::vec("[^\u{0}\u{fffe}\u{ffff}]{0,20}", 1..20),
            version in proptest::option::of("[a-z<&]{1,9}"),
            quiet in any::<bool>(),
        ) {
            let objects = keys.iter().map(|key| object(key, version.as_deref())).collect();
            let request = DeleteRequest { quiet, objects };
            prop_assert_eq!(&DeleteRequest::parse(request.to_xml().as_bytes(), LIMIT).unwrap(), &request);
            let tags: Vec<_> = keys.iter().take(MAX_TAGS).enumerate().map(|(i, key)| (i.to_string(), key.clone())).collect();
            let tagging = Tagging { tags };
            prop_assert_eq!(&Tagging::parse(tagging.to_xml().as_bytes(), LIMIT).unwrap(), &tagging);
            let parts = (1_u16..).zip(&keys).map(|(number, key)| Part { number, etag: format!("\"{}\"", key.trim()) });
            let complete = CompleteRequest { parts: parts.collect() };
            prop_assert_eq!(&CompleteRequest::parse(complete.to_xml().as_bytes(), LIMIT).unwrap(), &complete);
        }

        #[test]
        fn no_body_panics(body in any::<Vec<u8>>(), inner in "(<Object>|</Object>|<Key>|</Key>|<Part/>|a|&amp;|<Tag>|<Quiet/>){0,12}") {
            let _ = DeleteRequest::parse(&body, LIMIT);
            let _ = CompleteRequest::parse(&body, LIMIT);
            let _ = Tagging::parse(&body, LIMIT);
            let _ = (deleted(&inner), completed(&inner), tagged(&inner));
        }
    }
}
