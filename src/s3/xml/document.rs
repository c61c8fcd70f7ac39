//! A strict reader and a small writer, for documents of elements that hold either elements or text.

use std::borrow::Cow;
use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, Event};

use crate::error::{Code, S3Error};

/// S3's namespace, which every response carries.
pub(crate) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// How deep elements may nest.
const MAX_DEPTH: usize = 16;

/// The longest text that a single element may hold, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// Characters that XML 1.0 has not (section 2.2) but that readers let through: written anew, they would
/// name another key.
const NO_CHARACTERS: [char; 3] = ['\0', '\u{fffe}', '\u{ffff}'];

/// Reads a document element by element. Namespaces and attributes are ignored; a DTD, a processing
/// instruction and any entity but XML's own five are refused.
pub(super) struct Document<'a> {
    reader: Reader<&'a [u8]>,
    /// Elements that are open.
    depth: usize,
}

impl<'a> Document<'a> {
    /// Opens a document of at most `limit` bytes whose root is `root`.
    pub(super) fn open(body: &'a [u8], limit: usize, root: &str) -> Result<Self, S3Error> {
        if body.len() > limit {
            return Err(S3Error::new(
                Code::EntityTooLarge,
                format!("The XML body has more than {limit} bytes."),
            ));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        reader.config_mut().expand_empty_elements = true;
        let mut document = Self { reader, depth: 0 };
        match document.child()? {
            Some(name) if name == root => Ok(document),
            Some(_) => Err(malformed(&format!("its root is not {root}"))),
            None => Err(malformed("it is empty")),
        }
    }

    /// Enters the next child of the current element and gives its name; at the end leaves the current
    /// element and gives `None`.
    pub(super) fn child(&mut self) -> Result<Option<String>, S3Error> {
        loop {
            match self.event()? {
                Event::Start(start) => return Ok(Some(start.local_name().into_inner().to_owned())),
                Event::End(_) => return Ok(None),
                Event::Eof if self.depth == 0 => return Ok(None),
                Event::Eof => return Err(malformed("it ends too early")),
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                Event::Comment(_) | Event::Decl(_) => {}
                _ => return Err(malformed("there is text where an element should be")),
            }
        }
    }

    /// The text of the current element, which is left. Comments in it are refused: some readers join
    /// the text around them and some do not.
    pub(super) fn text(&mut self) -> Result<String, S3Error> {
        let mut text = String::new();
        loop {
            match self.event()? {
                Event::Text(piece) => text.push_str(&piece.xml10_content()),
                Event::CData(piece) => text.push_str(&piece.xml10_content()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(char)) => text.push(char),
                    Ok(None) => text.push_str(
                        resolve_xml_entity(&reference)
                            .ok_or_else(|| malformed("it uses an entity"))?,
                    ),
                    Err(_) => return Err(malformed("it holds an impossible character reference")),
                },
                Event::End(_) if text.contains(NO_CHARACTERS) => {
                    return Err(malformed("it holds a character that XML does not allow"));
                }
                Event::End(_) => return Ok(text),
                _ => {
                    return Err(malformed(
                        "there is an element or comment where only text should be",
                    ));
                }
            }
            if text.len() > MAX_TEXT {
                return Err(malformed("an element is too long"));
            }
        }
    }

    /// Leaves the current element, whatever it holds.
    pub(super) fn skip(&mut self) -> Result<(), S3Error> {
        let outer = self.depth;
        while self.depth >= outer {
            match self.event()? {
                Event::Eof => return Err(malformed("it ends too early")),
                _ if self.depth > MAX_DEPTH => return Err(malformed("it nests too deep")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes sure that nothing follows the root, which must have been left.
    pub(super) fn close(mut self) -> Result<(), S3Error> {
        match self.child()? {
            None => Ok(()),
            Some(_) => Err(malformed("something follows its root")),
        }
    }

    fn event(&mut self) -> Result<Event<'a>, S3Error> {
        let event = self
            .reader
            .read_event()
            .map_err(|error| malformed("it is not well-formed").detail(error.to_string()))?;
        match &event {
            Event::Start(_) => self.depth += 1,
            // The reader pairs tags: no end comes without its start.
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::Decl(declaration) => check_encoding(declaration)?,
            Event::DocType(_) => return Err(malformed("it has a document type")),
            Event::PI(_) => return Err(malformed("it has a processing instruction")),
            _ => {}
        }
        Ok(event)
    }
}

fn check_encoding(declaration: &BytesDecl<'_>) -> Result<(), S3Error> {
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => Ok(()),
        Some(_) => Err(malformed("it is not UTF-8")),
    }
}

/// Reads one text into `slot`, which must be empty still: of an element given twice, readers take
/// the first or the last.
pub(super) fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), S3Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(&format!("an element has two {name}"))),
    }
}

/// Writes elements, escaping their text.
pub(super) struct Writer(String);

impl Writer {
    /// Starts a document whose root is `root`, in S3's namespace.
    pub(super) fn with_root(root: &str) -> Self {
        Self::in_namespace(root, NAMESPACE)
    }

    /// Starts a document whose root is `root`, in `namespace`.
    pub(super) fn in_namespace(root: &str, namespace: &str) -> Self {
        Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"{namespace}\">"
        ))
    }

    /// Starts a document whose root is `root`, in no namespace.
    pub(super) fn with_bare_root(root: &str) -> Self {
        Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>"
        ))
    }

    /// `<name>text</name>`
    pub(super) fn element(&mut self, name: &str, text: &str) {
        self.open(name);
        self.text(text);
        self.close(name);
    }

    /// The same, if there is a text.
    pub(super) fn element_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.element(name, text);
        }
    }

    /// Markup written out.
    pub(super) fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// `<name>`
    pub(super) fn open(&mut self, name: &str) {
        self.0.extend(["<", name, ">"]);
    }

    /// `<name>` for each name of a path.
    pub(super) fn open_all(&mut self, path: &str) {
        path.split('/').for_each(|name| self.open(name));
    }

    /// `</name>` for each of them.
    pub(super) fn close_all(&mut self, path: &str) {
        path.rsplit('/').for_each(|name| self.close(name));
    }

    /// `</name>`
    pub(super) fn close(&mut self, name: &str) {
        self.0.extend(["</", name, ">"]);
    }

    /// Text, escaped so that a reader gives it back unchanged: control characters too, which readers
    /// else normalise. What XML cannot say at all becomes U+FFFD.
    pub(super) fn text(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                none if NO_CHARACTERS.contains(&none) => self.0.push('\u{fffd}'),
                '\u{1}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                    // Writing to a String cannot fail.
                    let _ = write!(self.0, "&#x{:x};", u32::from(char));
                }
                other => self.0.push(other),
            }
        }
    }

    /// Ends the document.
    pub(super) fn finish(mut self, root: &str) -> String {
        self.close(root);
        self.0
    }
}

/// `MalformedXML`, saying why.
pub(super) fn malformed(why: &str) -> S3Error {
    let message: Cow<'static, str> =
        format!("The XML body does not validate against S3's schema: {why}.").into();
    S3Error::new(Code::MalformedXML, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(xml: &str) -> Result<String, Code> {
        let read = || {
            let mut document = Document::open(xml.as_bytes(), 4096, "R")?;
            let text = document.text()?;
            document.close()?;
            Ok(text)
        };
        read().map_err(|error: S3Error| error.code())
    }

    #[test]
    fn the_five_entities_and_character_references_are_read() {
        let xml = "\u{feff}<?xml version='1.0' encoding='utf-8' ?>\n<!-- c -->\n<s:R xmlns:s='x' a='b'>a&lt;&amp;&quot;&apos;&gt;&#x41;&#66;<![CDATA[<c>]]>\r\nd</s:R>\n";
        assert_eq!(text_of(xml), Ok("a<&\"'>AB<c>\nd".to_owned()));
        assert_eq!(text_of("<R/>"), Ok(String::new()));
        assert_eq!(text_of("<R>&#1;&#x1b;</R>"), Ok("\u{1}\u{1b}".to_owned()));
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for xml in [
            "",
            " ",
            "x",
            "<R>",
            "<R></Q>",
            "</R>",
            "<R>a</R><R/>",
            "<R>a</R>x",
            "<Q/>",
            "<R",
            "<R><",
            "<R>&",
            "<!DOCTYPE R><R>a</R>",
            "<!DOCTYPE R [<!ENTITY e 'x'>]><R>&e;</R>",
            "<R><!DOCTYPE R></R>",
            "<R>&e;</R>",
            "<R>&nbsp;</R>",
            "<R>&#0;</R>",
            "<R>\0</R>",
            "<R>a\u{ffff}</R>",
            "<R>&#xfffe;</R>",
            "<R><![CDATA[\u{fffe}]]></R>",
            "<R>&#xd800;</R>",
            "<R>&#x110000;</R>",
            "<R>&#+1;</R>",
            "<R>&#;</R>",
            "<R>a<!-- c -->b</R>",
            "<R><?p?>a</R>",
            "<?p?><R>a</R>",
            "<R>a<b/></R>",
            "<?xml version='1.0' encoding='utf-16'?><R>a</R>",
        ] {
            assert_eq!(text_of(xml), Err(Code::MalformedXML), "{xml}");
        }
        assert!(Document::open(b"<R>\xff</R>", 4096, "R").is_err());
    }

    #[test]
    fn sizes_are_limited() {
        let long = format!("<R>{}</R>", "a".repeat(5000));
        assert_eq!(text_of(&long), Err(Code::EntityTooLarge));
        let long = format!("<R>{}</R>", "a".repeat(MAX_TEXT + 1));
        let mut document = Document::open(long.as_bytes(), usize::MAX, "R").unwrap();
        assert_eq!(document.text().unwrap_err().code(), Code::MalformedXML);
        let deep = format!(
            "<R>{}{}</R>",
            "<a>".repeat(MAX_DEPTH + 1),
            "</a>".repeat(MAX_DEPTH + 1)
        );
        let mut document = Document::open(deep.as_bytes(), usize::MAX, "R").unwrap();
        assert_eq!(document.skip().unwrap_err().code(), Code::MalformedXML);
    }

    #[test]
    fn what_xml_cannot_say_is_replaced() {
        let mut writer = Writer::with_bare_root("R");
        writer.text("a\0\u{ffff}\r\n\t\u{1b}<&>\"'");
        let xml = writer.finish("R");
        assert!(
            xml.ends_with("<R>a\u{fffd}\u{fffd}&#xd;&#xa;&#x9;&#x1b;&lt;&amp;&gt;&quot;'</R>"),
            "{xml}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn written_text_reads_back(text in "[^\u{0}\u{fffe}\u{ffff}]{0,80}") {
            let mut writer = Writer::with_root("R");
            writer.text(&text);
            prop_assert_eq!(text_of(&writer.finish("R")), Ok(text));
        }

        #[test]
        fn no_document_panics(xml in "(<R>|</R>|<a|/>|<|>|&|;|&#|x|1|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<\\?|\\?>|<!DOCTYPE|\\[| |=|'|\u{e9}){0,24}") {
            let _ = text_of(&xml);
            if let Ok(mut document) = Document::open(xml.as_bytes(), 4096, "R") {
                let _ = document.skip();
            }
        }
    }
}
