//! Forwarding headers of any shape: addresses or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::http::forwarded;

fuzz_target!(|line: &str| {
    drop(forwarded::forwarded_for(line));
    let _ = forwarded::node(line);
});
