//! Tests of the selection policies.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod changes;
mod patterns;
mod properties;
mod refusals;
mod select;
mod settings;
mod vectors;

use tagtrail_proto::Platform;

/// Returns the platform of a text such as `linux/arm64/v8`.
fn platform(text: &str) -> Platform {
    let mut words = text.split('/').map(str::to_owned);
    Platform {
        os: words.next().unwrap(),
        architecture: words.next().unwrap(),
        variant: words.next(),
        os_version: None,
        digest: None,
    }
}
