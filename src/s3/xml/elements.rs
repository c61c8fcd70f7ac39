//! [`each_element`]: the elements of a document that a store wrote, for those who need a few of its texts.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};

/// Reads a whole document. `seen` gets the path and the text of each element that ends, a parent after its
/// children. `None` for what is no whole document, or where `seen` returns it.
pub(crate) fn each_element(
    body: &[u8],
    mut seen: impl FnMut(&[&str], &str) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader::from_reader(body);
    let (mut path, mut text) = (Vec::<String>::new(), String::new());
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                path.push(element.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part),
            Event::GeneralRef(entity) => text.push(resolve(&entity)?),
            Event::CData(part) => text.push_str(&part),
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                seen(&names, &text)?;
                path.pop();
                text.clear();
                if path.is_empty() {
                    return Some(());
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// The character of an XML reference: one of the five entities, or a number.
fn resolve(entity: &BytesRef<'_>) -> Option<char> {
    if let Some(character) = entity.resolve_char_ref().ok()? {
        return Some(character);
    }
    resolve_xml_entity(entity)?.chars().next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "(<(/?(A|B)|!|\\?)>?|&(amp|x|#1)?;?|[0-9a ]){0,30}") {
            let _ = (each_element(&bytes, |_, _| Some(())), each_element(text.as_bytes(), |_, _| Some(())));
        }
    }

    fn elements(body: &str) -> Option<Vec<String>> {
        let mut all = Vec::new();
        each_element(body.as_bytes(), |path, text| {
            all.push(format!("{} {text}", path.join("/")));
            Some(())
        })?;
        Some(all)
    }

    #[test]
    fn gives_each_element_with_its_path_and_text() {
        let body = "<?xml version=\"1.0\"?><R xmlns=\"n\"><A><B>1 &amp; &#233;</B></A><C><![CDATA[<]]></C></R>";
        let all = ["R/A/B 1 & é", "R/A ", "R/C <", "R "].map(str::to_owned);
        assert_eq!(elements(body), Some(all.to_vec()));
    }

    #[test]
    fn what_is_no_whole_document_is_none() {
        for body in ["", "text", "<R><A>1</A>", "<R><A>1</R>", "<R>&none;</R>"] {
            assert_eq!(elements(body), None, "{body}");
        }
    }
}
