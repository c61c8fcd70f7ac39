//! The page of a listing: whether it is whole, and where the next one starts.

use bytes::BytesMut;
use quick_xml::escape::escape;

use super::document::{next_of, proof_of};
use super::text::put_leaf;
use super::{DocumentStage, ResponseRewriter};
use crate::rewrite::names::{EchoedParameter, Unfit};
use crate::s3::Operation;
use crate::s3::continuation::token_of_marker;

/// What a listing has declared of its page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) truncated: Option<bool>,
    /// The client has got where the next page starts.
    pub(super) goes_on: bool,
    /// It has got the element that says so, which may be empty.
    pub(super) has_next: bool,
    /// Keys and common prefixes.
    pub(super) entries: u64,
    /// The greatest of them, decoded: where the next page starts if COS does not say.
    pub(super) last: String,
}

impl ResponseRewriter {
    /// Notes whether COS's listing goes on, and says whether the client's does.
    pub(super) fn truncated(&mut self, text: &str) -> Result<&'static str, Unfit> {
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
    pub(super) fn end(&mut self, out: &mut BytesMut) -> Result<(), Unfit> {
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
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::config::UpstreamSignature;
    use crate::rewrite::listing::tests::{
        LISTING, LISTINGS, WHOLE, document, list, rewrite, rewriter, rewritten, run, s3,
    };
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::tenant::Permit;

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
}
