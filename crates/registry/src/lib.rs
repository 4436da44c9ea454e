//! A client for OCI registries: the digest of a tag, the tags of a repository, the content of a
//! digest.
//!
//! In scope: requests by the OCI distribution specification 1.1, with the authentication that
//! registries use in practice (none, Basic, bearer tokens). Answers are verified: the client hashes
//! a manifest if the registry does not name its digest, and compares the hash if it does. Time,
//! size and concurrent requests are bounded, `Retry-After` is honoured, and a circuit breaker
//! stops requests to a registry that keeps failing.
//!
//! Out of scope: when to ask, and the use of the answer (the resolver).
//!
//! Answers of a registry are untrusted. The client connects only to configured registries, at
//! their configured URL. It follows a redirect only within that origin, and sends credentials only
//! there and to the configured `realm`. Only blobs are fetched from other hosts: without
//! credentials, since their digest proves the bytes.

mod answer;
mod auth;
mod breaker;
mod client;
mod content;
mod error;
mod ping;
mod tags;

pub use answer::Descriptor;
pub use client::{Found, RegistryClient};
pub use content::Content;
pub use error::AskError;
pub use ping::Ping;
pub use tags::{NextPage, TagList, TagPage};

/// For the fuzz targets in `fuzz/`: reads answers without a registry.
#[cfg(fuzzing)]
pub mod fuzz {
    use reqwest::Response;

    use super::{AskError, Descriptor, answer};
    use crate::auth::Challenge;

    /// Reads an answer as if it were the answer to each kind of request.
    pub async fn answers(
        answer: impl Fn() -> Response,
    ) -> (
        Result<Option<Descriptor>, AskError>,
        Result<Descriptor, AskError>,
    ) {
        let head = answer();
        let values = head.headers().get_all(reqwest::header::WWW_AUTHENTICATE);
        let _ = Challenge::choose(values.iter().filter_map(|value| value.to_str().ok()));
        let _ = answer::absent(answer()).await;
        let refusal = answer::refusal(answer()).await.to_string();
        assert!(refusal.len() < 4096, "{refusal}");
        (
            answer::described(&head),
            answer::hashed(answer(), 64 * 1024).await,
        )
    }
}
