//! The encoding of names that a response declares.

use memchr::{memchr, memmem, memrchr};

use super::TAG_BYTES;
use crate::rewrite::element::declares_encoding;

/// What a response says of how its names are encoded, once that stands in `bytes`, of which the first
/// `seen` have been looked at before. The rewriting itself sees to it that it was read right.
pub(super) fn declared_encoding(bytes: &[u8], seen: usize) -> Option<bool> {
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::config::UpstreamSignature;
    use crate::rewrite::listing::EARLY_BYTES;
    use crate::rewrite::listing::tests::{
        WHOLE, document, list, rewrite, rewriter, rewritten, rooted, s3,
    };
    use crate::rewrite::names::Unfit;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::Operation;
    use crate::tenant::Permit;

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
        // Declared at the end, as some stores do: the client that requested it has waited.
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
}
