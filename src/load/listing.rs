//! Listings of a store: pages of objects and of unfinished uploads. Pure.

use crate::s3::xml::each_element;

/// A page of `ListObjectsV2` or `ListMultipartUploads`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListedPage {
    /// The keys and sizes of objects. For uploads: the keys.
    pub(super) objects: Vec<(String, u64)>,
    /// The ids of uploads, in the order of their keys.
    pub(super) upload_ids: Vec<String>,
    /// The start of the next page; `None` on the last one.
    pub(super) next: Option<String>,
}

impl ListedPage {
    /// Parses a page. `None` for another document, and for a page that is truncated but does not name the next one.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut page = Self::default();
        let (mut key, mut size) = (String::new(), None);
        let (mut is_truncated, mut is_listing) = (false, false);
        each_element(body, |path, text| {
            match path {
                [_, "Contents" | "Upload", "Key"] => text.clone_into(&mut key),
                [_, "Contents", "Size"] => size = Some(text.trim().parse().ok()?),
                [_, "Contents"] => {
                    page.objects.push((std::mem::take(&mut key), size.take()?));
                }
                [_, "Upload", "UploadId"] => page.upload_ids.push(text.to_owned()),
                [_, "Upload"] => page.objects.push((std::mem::take(&mut key), 0)),
                [_, "IsTruncated"] => is_truncated = text.trim() == "true",
                [_, "NextContinuationToken"] => page.next = Some(text.to_owned()),
                ["ListBucketResult" | "ListMultipartUploadsResult"] => is_listing = true,
                _ => {}
            }
            Some(())
        })?;
        let has_lost_its_place = is_truncated && page.next.is_none() && page.upload_ids.is_empty();
        (is_listing && !has_lost_its_place).then_some(page)
    }
}

/// The text of one element that is a direct child of the root.
pub(super) fn element(body: &[u8], name: &str) -> Option<String> {
    let mut found = None;
    each_element(body, |path, text| {
        if found.is_none() && matches!(path, [_, child] if *child == name) {
            found = Some(text.to_owned());
        }
        Some(())
    })?;
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "(<(/?(ListBucketResult|Contents|Key|Size|Upload|UploadId)|!|\\?)>?|&(amp|x|#1)?;?|[0-9a ]){0,30}") {
            let _ = (ListedPage::parse(&bytes), ListedPage::parse(text.as_bytes()), element(text.as_bytes(), "Key"));
        }
    }

    #[test]
    fn reads_keys_sizes_and_next_page() {
        let body = br#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>b</Name><Prefix>p/</Prefix><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>
<Contents><Key>p/a &amp; b &#233; &lt;1&gt;</Key><ETag>&quot;x&quot;</ETag><Size>12</Size><Owner><ID>Key</ID></Owner></Contents>
<Contents><Key>p/2</Key><Size>0</Size></Contents></ListBucketResult>"#;
        let page = ListedPage::parse(body).unwrap();
        assert_eq!(page.next.as_deref(), Some("a&b"));
        assert_eq!(
            page.objects,
            [("p/a & b é <1>".to_owned(), 12), ("p/2".to_owned(), 0)]
        );
    }

    #[test]
    fn rejects_truncated_page_without_next() {
        for body in [
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>",
            "<Error><Code>x</Code></Error>",
            "",
        ] {
            assert_eq!(ListedPage::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn reads_uploads_with_their_ids() {
        let body = b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>k</Key><UploadId>u1</UploadId></Upload></ListMultipartUploadsResult>";
        let page = ListedPage::parse(body).unwrap();
        assert_eq!(
            (page.objects, page.upload_ids),
            (vec![("k".to_owned(), 0)], vec!["u1".to_owned()])
        );
    }

    #[test]
    fn finds_elements_below_the_root_only() {
        let body = b"<R><A><UploadId>no</UploadId></A><UploadId>a&amp;b</UploadId></R>";
        assert_eq!(element(body, "UploadId").as_deref(), Some("a&b"));
        assert_eq!(element(body, "Other"), None);
    }
}
