//! What comes on an HTTP/2 connection, counted: the first byte tells in which portions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wicketgate::front::count_frames;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = count_frames([bytes].into_iter());
    assert_eq!(count_frames(bytes.chunks(usize::from(*size).max(1))), whole);
    // What carries nothing is at least a header long.
    assert!(whole.is_some() || bytes.len() > 2_000 * 9);
});
