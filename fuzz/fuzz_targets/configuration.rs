//! `tagtrail.toml`: every file is valid, or causes an error with the file's name.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tagtrail_config::File;

fuzz_target!(|text: &str| {
    if let Err(error) = File::parse(text, Path::new("tagtrail.toml")) {
        assert!(error.to_string().starts_with("tagtrail.toml"), "{error}");
    }
});
