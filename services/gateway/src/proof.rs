//! How a sender proves its identity: with a secret, a signature of the body, or an identity
//! provider's token.

pub(crate) mod credentials;
pub(crate) mod id_token;
pub(crate) mod signature;
