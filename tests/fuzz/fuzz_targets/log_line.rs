//! A line of an access log is a request or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::import;

fuzz_target!(|line: &str| {
    if let Ok(line) = import::parse(line) {
        assert!(!line.target.is_empty());
    }
});
