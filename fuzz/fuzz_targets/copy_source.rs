//! Any `x-amz-copy-source`: what is taken names one clean key of one bucket, and the same when it is
//! written anew.

#![no_main]

use cosgate::encoding::percent::{push_encoded, push_encoded_path};
use cosgate::s3::address::check_bucket;
use cosgate::s3::{CopySource, ObjectKey};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let Ok(source) = CopySource::parse(&value) else {
        return;
    };
    assert!(check_bucket(&source.bucket).is_ok());
    assert!(ObjectKey::from_decoded(source.key.as_str().to_owned()).is_ok());
    let mut anew = format!("{}/", source.bucket);
    push_encoded_path(&mut anew, source.key.as_str().as_bytes());
    if let Some(id) = &source.version_id {
        anew.push_str("?versionId=");
        push_encoded(&mut anew, id.as_bytes());
    }
    let anew = HeaderValue::from_str(&anew).expect("encoded text is a header's");
    assert_eq!(CopySource::parse(&anew).unwrap(), source);
});
