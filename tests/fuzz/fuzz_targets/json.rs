//! JSON of strangers is read within its nesting, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::intake;

fuzz_target!(|bytes: &[u8]| {
    drop(intake::parse_json(bytes, 64));
});
