//! Proofs of a sender's identity: a secret, a signature of the body, or an identity provider's
//! token.

pub(crate) mod credentials;
pub(crate) mod hashing;
pub(crate) mod id_token;
pub(crate) mod signature;
