//! Digests: the identity of content, in the notation of the OCI image specification.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::name::{NameError, string_like};

/// The hash function of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: 32 bytes.
    Sha256,
    /// SHA-512: 64 bytes.
    Sha512,
}

impl Algorithm {
    /// Returns the name of the function in a digest, before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// A digest: `sha256:` or `sha512:` and lower-case hex. Ordered by function, then by bytes. Cheap
/// to clone (no allocation).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Bytes);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Bytes {
    Sha256([u8; 32]),
    // Behind a pointer: inline, the rare SHA-512 would double the size of every digest.
    Sha512(std::sync::Arc<[u8; 64]>),
}

impl Digest {
    /// Returns the digest of 32 (SHA-256) or 64 (SHA-512) bytes; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Digest> {
        match bytes.len() {
            32 => bytes
                .try_into()
                .ok()
                .map(|bytes| Digest(Bytes::Sha256(bytes))),
            64 => bytes
                .try_into()
                .ok()
                .map(|bytes: [u8; 64]| Digest(Bytes::Sha512(bytes.into()))),
            _ => None,
        }
    }

    /// Returns the bare hash: 32 or 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Sha256(bytes) => bytes,
            Bytes::Sha512(bytes) => bytes.as_slice(),
        }
    }

    /// Returns the hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Bytes::Sha256(_) => Algorithm::Sha256,
            Bytes::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the SHA-256 of `content`.
    #[must_use]
    pub fn sha256_of(content: &[u8]) -> Digest {
        Digest(Bytes::Sha256(Sha256::digest(content).into()))
    }

    /// Returns the SHA-512 of `content`.
    #[must_use]
    pub fn sha512_of(content: &[u8]) -> Digest {
        let bytes: [u8; 64] = Sha512::digest(content).into();
        Digest(Bytes::Sha512(bytes.into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().as_str(), hex(self.as_bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Digest, NameError> {
        let error = || {
            NameError::new(
                "the digest",
                text,
                "it must be sha256: and 64, or sha512: and 128 lower-case hex digits",
            )
        };
        let (algorithm, digits) = text.split_once(':').ok_or_else(error)?;
        let expected = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(error()),
        };
        if digits.len() != expected {
            return Err(error());
        }
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
            .collect();
        bytes
            .as_deref()
            .and_then(Digest::from_bytes)
            .ok_or_else(error)
    }
}

string_like!(
    Digest,
    "a digest",
    r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
);

/// Returns bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
