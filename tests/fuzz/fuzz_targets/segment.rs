//! Any bytes as a segment file: intact frames are found, nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::journal;

fuzz_target!(|bytes: &[u8]| {
    let _ = journal::scan_bytes(bytes);
});
