//! A body of many events splits into at most the events allowed, or is refused.
#![no_main]

use bytes::Bytes;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use tracker::http::batch;

fuzz_target!(|body: &[u8]| {
    let form = batch::form(&HeaderMap::new(), body);
    if let Ok(events) = batch::split(form, &Bytes::copy_from_slice(body), 100) {
        assert!(events.len() <= 100);
    }
});
