//! Any text as a configuration file: settings, or errors that each name something.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracker::config::Config;

fuzz_target!(|text: &str| {
    if let Err(errors) = Config::parse(text, Path::new("."), &BTreeMap::new()) {
        assert!(!errors.is_empty() && errors.iter().all(|error| !error.message.is_empty()));
    }
});
