//! Any text as an address: cleaned, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::intake;

fuzz_target!(|text: &str| {
    drop(intake::clean_url(text));
});
