//! Signatures of bodies: a header with the HMAC of the body under the source's secret, in
//! hexadecimal digits.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::Choice;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// Reads the signature in a header value. `None`: the value has another form, and so matches no
    /// body.
    pub(crate) fn claim(&self, value: &[u8]) -> Option<Claim> {
        let (prefix, digits) = value.split_at_checked(self.prefix.len())?;
        let size = match self.hash {
            Hash::Sha1 => Sha1::output_size(),
            Hash::Sha256 => Sha256::output_size(),
        };
        if !prefix.eq_ignore_ascii_case(self.prefix.as_bytes()) || digits.len() != 2 * size {
            return None;
        }
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = |pair: &[u8]| u8::try_from(digit(&pair[0])? << 4 | digit(&pair[1])?).ok();
        Some(Claim {
            hash: self.hash,
            mac: digits.chunks_exact(2).map(byte).collect::<Option<_>>()?,
        })
    }
}

/// The signature that a request claims for its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    hash: Hash,
    mac: Vec<u8>,
}

impl Claim {
    /// Returns whether this is the signature of the body with the secret.
    pub(crate) fn holds(&self, secret: &SecretString, body: &[u8]) -> Choice {
        let key = secret.expose_secret().as_bytes();
        let matches = match self.hash {
            Hash::Sha1 => verify::<Hmac<Sha1>>(key, body, &self.mac),
            Hash::Sha256 => verify::<Hmac<Sha256>>(key, body, &self.mac),
        };
        Choice::from(u8::from(matches))
    }
}

/// Compares in constant time.
fn verify<M: Mac + KeyInit>(key: &[u8], body: &[u8], mac: &[u8]) -> bool {
    // HMAC takes a key of any length.
    M::new_from_slice(key).is_ok_and(|m| m.chain_update(body).verify_slice(mac).is_ok())
}
