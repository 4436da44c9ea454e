//! Signatures of bodies: a header with the HMAC of the body under the source's secret, in
//! hexadecimal digits.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

/// A form of signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature {
    /// The header, in lower case.
    pub(crate) header: &'static str,
    hash: Hash,
    /// The text before the digits.
    prefix: &'static str,
    /// Whether the header may hold the secret itself, for senders that do not sign.
    pub(crate) or_secret: bool,
}

#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
}

impl Signature {
    /// HMAC-SHA256 in this header.
    pub(crate) const fn sha256(header: &'static str) -> Signature {
        Signature {
            header,
            hash: Hash::Sha256,
            prefix: "",
            or_secret: false,
        }
    }

    /// HMAC-SHA1 in this header. SHA-1 is broken as a hash, but not as a MAC, and some products
    /// still use SHA-1.
    pub(crate) const fn sha1(header: &'static str) -> Signature {
        Signature {
            hash: Hash::Sha1,
            ..Signature::sha256(header)
        }
    }

    /// Adds a prefix before the digits.
    pub(crate) const fn prefixed(self, prefix: &'static str) -> Signature {
        Signature { prefix, ..self }
    }

    /// Accepts the secret itself too.
    pub(crate) const fn or_secret(self) -> Signature {
        Signature {
            or_secret: true,
            ..self
        }
    }

    /// Returns the header value that matches the body.
    fn of(&self, secret: &SecretString, body: &[u8]) -> Option<String> {
        let key = secret.expose_secret().as_bytes();
        let mac: Vec<u8> = match self.hash {
            Hash::Sha1 => {
                let mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
                mac.chain_update(body).finalize().into_bytes().to_vec()
            }
            Hash::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
                mac.chain_update(body).finalize().into_bytes().to_vec()
            }
        };
        let digits: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{}{digits}", self.prefix))
    }

    /// Returns whether the header is present, and every value is a signature of the body with a
    /// live secret.
    pub(crate) fn holds(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
    ) -> Choice {
        let mut all = Choice::from(u8::from(headers.contains_key(self.header)));
        for value in headers.get_all(self.header) {
            let shown = value.as_bytes().to_ascii_lowercase();
            let mut matched = Choice::from(0);
            for secret in secrets {
                let right = self.of(secret, body).unwrap_or_default();
                // `ct_eq` returns early for different lengths, which are no secret.
                matched |=
                    shown.ct_eq(right.as_bytes()) & Choice::from(u8::from(!right.is_empty()));
                if self.or_secret {
                    matched |= tagtrail_config::Live::new(std::slice::from_ref(secret))
                        .is(value.as_bytes());
                }
            }
            all &= matched;
        }
        all
    }
}
