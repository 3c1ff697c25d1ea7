//! Bytes of the journal that decode are an event that encodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracker::event;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = event::decode(bytes) {
        event::encode(&read).expect("what was read can be written");
    }
});
