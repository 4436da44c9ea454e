//! The keys of an identity provider, fetched by a task of their own: no sender can cancel a fetch
//! by hanging up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use tagtrail_daemon::Route;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Shortest time between two fetches of the keys: tokens with an unknown key must not cause more.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);
/// The time after which a failed fetch is repeated.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time to fetch the keys, while senders wait.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest key set, in bytes. Google's has 2 KiB.
const MAX_KEY_SET: usize = 64 << 10;

/// The place of a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// An address. The set is fetched again for an unknown key.
    Url(String),
    /// A file. The file is read again for an unknown key.
    File(PathBuf),
}

/// The keys, and the task that fetches them.
#[derive(Debug)]
pub struct KeyKeeper {
    source: KeySource,
    /// A token needs a key that is not known.
    wanted: Notify,
    set: watch::Sender<KeySet>,
}

#[derive(Debug)]
enum KeySource {
    Url(String, reqwest::Client),
    File(PathBuf),
}

#[derive(Debug, Default)]
struct KeySet {
    keys: HashMap<String, Key>,
    /// The last success.
    fetched: Option<Instant>,
    /// The last failure since then.
    failed: Option<Instant>,
}

/// A public key.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// Modulus and exponent, big endian.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point of the curve P-256, uncompressed.
    P256(Vec<u8>),
}

impl Key {
    /// Returns whether the signature by this algorithm is that of the key.
    pub(crate) fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Key::Rsa { n, e }, "RS256") => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            (Key::P256(point), "ES256") => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct JsonKeySet {
    keys: Vec<JsonKey>,
}

#[derive(Deserialize)]
struct JsonKey {
    kid: Option<String>,
    kty: String,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl JsonKey {
    /// Returns the id and the key, if it is of a kind that is known.
    fn read(self) -> Option<(String, Key)> {
        let number = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::Rsa {
                n: number(self.n)?,
                e: number(self.e)?,
            },
            ("EC", Some("P-256")) => {
                let (x, y) = (number(self.x)?, number(self.y)?);
                Key::P256([&[4][..], &x, &y].concat())
            }
            _ => return None,
        };
        Some((self.kid?, key))
    }
}

impl KeySet {
    /// Returns the key, or the reason why there is none. `None`: a fetch is due.
    fn find(&self, name: &str, now: Instant) -> Option<Result<Key, Error>> {
        if let Some(key) = self.keys.get(name) {
            return Some(Ok(key.clone()));
        }
        if self.is_due(now) {
            return None;
        }
        let why = "signed with a key that is not among the keys";
        Some(Err(match self.failed {
            Some(_) => Error::KeysUnavailable,
            None => Error::Refused(why.to_owned()),
        }))
    }

    fn is_due(&self, now: Instant) -> bool {
        let since = |at: Option<Instant>, interval| at.is_none_or(|at| now >= at + interval);
        since(self.fetched, FETCH_INTERVAL) && since(self.failed, RETRY_INTERVAL)
    }
}

impl KeyKeeper {
    /// # Errors
    /// If the HTTP client can't be made.
    pub(crate) fn new(keys: Keys) -> Result<KeyKeeper, String> {
        let source = match keys {
            Keys::File(path) => KeySource::File(path),
            Keys::Url(url) => {
                let client = Route::default().build(FETCH_TIMEOUT)?;
                KeySource::Url(url, client)
            }
        };
        Ok(KeyKeeper {
            source,
            wanted: Notify::new(),
            set: watch::Sender::default(),
        })
    }

    /// Fetches the keys at the start, and when a token needs an unknown one, until shutdown.
    pub async fn keep(&self, shutdown: &CancellationToken) {
        self.wanted.notify_one();
        while tokio::select! {
            () = self.wanted.notified() => true,
            () = shutdown.cancelled() => false,
        } {
            // Several senders may have asked for one fetch.
            if !self.set.borrow().is_due(Instant::now()) {
                continue;
            }
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                () = shutdown.cancelled() => return,
            };
            let now = Some(Instant::now());
            self.set.send_modify(|set| match fetched {
                Ok(keys) => {
                    (set.keys, set.fetched, set.failed) = (keys, now, None);
                }
                Err(why) => {
                    tracing::warn!("no token with a new key can be verified: {why}");
                    set.failed = now;
                }
            });
        }
    }

    /// Returns the key with this id. An unknown id causes a fetch.
    pub(crate) async fn key(&self, name: &str) -> Result<Key, Error> {
        let mut set = self.set.subscribe();
        let found = async {
            loop {
                if let Some(found) = set.borrow_and_update().find(name, Instant::now()) {
                    return found;
                }
                self.wanted.notify_one();
                if set.changed().await.is_err() {
                    return Err(Error::KeysUnavailable);
                }
            }
        };
        let found = timeout(FETCH_TIMEOUT, found).await;
        found.unwrap_or(Err(Error::KeysUnavailable))
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let text = match &self.source {
            KeySource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| format!("{} can't be read: {error}", path.display()))?,
            KeySource::Url(url, client) => {
                let failed = |error: reqwest::Error| {
                    format!(
                        "the keys can't be fetched from {url}: {}",
                        error.without_url()
                    )
                };
                let answer = client.get(url).send().await.map_err(failed)?;
                let mut answer = answer.error_for_status().map_err(failed)?;
                let mut text = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                    text.extend_from_slice(&chunk);
                    if text.len() > MAX_KEY_SET {
                        return Err(format!("more than {} KiB of keys", MAX_KEY_SET >> 10));
                    }
                }
                text
            }
        };
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let set: JsonKeySet = serde_json::from_slice(text)
            .map_err(|error| format!("the keys are no JSON Web Key Set: {error}"))?;
        Ok(set.keys.into_iter().filter_map(JsonKey::read).collect())
    }
}
