//! Any request target: a key that is taken is clean, and means the same when it is written anew.

#![no_main]

use cosgate::encoding::percent::push_encoded_path;
use cosgate::s3::address::MAX_KEY_BYTES;
use cosgate::s3::{Address, ObjectKey};
use http::Uri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(uri) = Uri::try_from(input) else {
        return;
    };
    let domains = ["s3.localhost".to_owned()];
    for host in ["127.0.0.1:9000", "photos.s3.localhost"] {
        let Ok(address) = Address::parse(&uri, host, &domains) else {
            continue;
        };
        let Some(Ok(key)) = address.raw_key.map(ObjectKey::parse) else {
            continue;
        };
        let text = key.as_str();
        assert!(!text.is_empty() && text.len() <= MAX_KEY_BYTES);
        assert!(!text.split('/').any(|segment| matches!(segment, "." | "..")));
        let mut anew = String::from("/photos/");
        push_encoded_path(&mut anew, text.as_bytes());
        let anew = Uri::try_from(anew).expect("an encoded key is a target");
        let again = Address::parse(&anew, "127.0.0.1:9000", &[]).expect("and one that is taken");
        assert_eq!(again.raw_key.map(ObjectKey::parse).unwrap().unwrap(), key);
    }
});
