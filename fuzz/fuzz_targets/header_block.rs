//! Any header block of HTTP/2: however it arrives, the same is read, and what is altered has no fragment.

#![no_main]

use cosgate::downstream::header_block::HeaderBlocks;
use libfuzzer_sys::fuzz_target;

fn read(pieces: &[&[u8]]) -> (bool, Vec<String>) {
    let mut blocks = HeaderBlocks::default();
    let mut altered = Vec::new();
    let mut is_readable = true;
    for piece in pieces {
        is_readable = is_readable && blocks.take(piece, |target| altered.push(target)).is_ok();
    }
    (is_readable && blocks.end().is_ok(), altered)
}

fuzz_target!(|input: &[u8]| {
    let whole = read(&[input]);
    assert!(whole.1.iter().all(|target| !target.contains('#')));
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(read(&bytes), whole);
    let (a, b) = input.split_at(input.len() / 2);
    assert_eq!(read(&[a, b]), whole);
});
