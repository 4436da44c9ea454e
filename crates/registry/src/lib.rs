//! Asks an OCI registry what a tag points to, and what a digest is.
//!
//! In scope: "which digest has this tag?", "which tags are there?" and "give me the content of this digest" ([`Content`]), by the
//! OCI distribution specification 1.1, with the authentication that registries really use (none, Basic, bearer tokens), verified
//! (bytes are hashed where the registry does not name the digest, and compared where it does), bounded (time, size, requests at
//! once), patient (`Retry-After`), and leaving alone for a while what fails again and again.
//!
//! Out of scope: when to ask and what follows (the resolver).
//!
//! Everything that a registry says is hostile. Only configured registries are asked, at their configured URL. A redirect is
//! followed only within that origin; a token is fetched, and credentials are shown, only there and at the configured `realm`. Blobs
//! alone are fetched elsewhere, without credentials, since their bytes prove themselves.

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
pub use tags::{NextPage, Page};

/// For the fuzz targets in `fuzz/`: what is made of an answer, without a registry.
#[cfg(fuzzing)]
pub mod fuzz {
    use reqwest::Response;

    use super::{AskError, Descriptor, answer};
    use crate::auth::Challenge;

    /// Takes an answer as that to each question that is asked.
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
