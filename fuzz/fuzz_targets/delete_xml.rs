//! Any XML body: what is taken of it says the same when it is written anew, as COS gets it.

#![no_main]

use cosgate::s3::xml::{CompleteRequest, DeleteRequest, Tagging};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    if let Ok(read) = DeleteRequest::parse(input, LIMIT) {
        assert_eq!(
            DeleteRequest::parse(read.to_xml().as_bytes(), LIMIT).unwrap(),
            read
        );
    }
    if let Ok(read) = CompleteRequest::parse(input, LIMIT) {
        assert_eq!(
            CompleteRequest::parse(read.to_xml().as_bytes(), LIMIT).unwrap(),
            read
        );
    }
    if let Ok(read) = Tagging::parse(input, LIMIT) {
        assert_eq!(
            Tagging::parse(read.to_xml().as_bytes(), LIMIT).unwrap(),
            read
        );
    }
});
