//! Any query: what is taken means the same when it is written anew.

#![no_main]

use cosgate::encoding::percent::push_encoded;
use cosgate::s3::Query;
use cosgate::s3::query::MAX_PARAMETERS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let Ok(query) = Query::parse(input) else {
        return;
    };
    assert!(query.pairs().len() <= MAX_PARAMETERS);
    let mut anew = String::new();
    for (name, value) in query.iter() {
        push_encoded(&mut anew, name.as_bytes());
        anew.push('=');
        push_encoded(&mut anew, value.as_bytes());
        anew.push('&');
    }
    let again = Query::parse(&anew).expect("what was taken once");
    assert_eq!(again.pairs(), query.pairs());
});
