//! Any configuration: it is taken, or everything that is wrong with it can be expressed.

#![no_main]

use std::io;

use cosgate::config::{Config, Sources};
use cosgate::timestamp::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let sources = Sources {
        env: &|name| (name.len() == 4).then(|| "value".to_owned()),
        file: &|_| Err(io::ErrorKind::NotFound.into()),
        env_names: &Vec::new,
        cores: 2,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    match Config::parse("fuzz.toml", input, &sources) {
        Ok((_, warnings)) => warnings.iter().for_each(|it| drop(it.to_string())),
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|it| drop(it.to_string()));
        }
    }
});
