//! People whom a proxy before the pages has signed in: the proxy shows a token of the identity
//! provider in a header, and nobody else can make one.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use tagtrail_config::{Identity, IdentityKeys, Role};
use tagtrail_identity::{Error as Refusal, KeyKeeper, Keys, Rules, Verifier};
use tagtrail_proto::clean_text;

use crate::http::error::Error;
use crate::http::tokens::Holder;

/// Longest name of a person that is recorded, in bytes.
const LONGEST: usize = 200;

/// The check of the proxy's header.
#[derive(Debug)]
pub(crate) struct People {
    header: HeaderName,
    verifier: Verifier,
    settings: Identity,
}

impl People {
    /// # Errors
    /// The header has an impossible name, or the HTTP client can't be made.
    pub(crate) fn new(settings: &Identity) -> Result<People, String> {
        let header = HeaderName::try_from(settings.header.as_str());
        let header = header.map_err(|_| format!("{:?} is no name of a header", settings.header))?;
        let keys = match &settings.keys {
            IdentityKeys::Url(url) => Keys::Url(url.clone()),
            IdentityKeys::File(path) => Keys::File(path.clone()),
        };
        let verifier = Verifier::new(Rules {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            keys,
        })?;
        Ok(People {
            header,
            verifier,
            settings: settings.clone(),
        })
    }

    /// Returns the keys, whose task must run.
    pub(crate) fn keys(&self) -> &Arc<KeyKeeper> {
        self.verifier.keys()
    }

    /// Returns the person whom the proxy names. `None`: the request came without the header.
    ///
    /// # Errors
    /// The header is repeated or proves nothing, or the keys can't be read.
    pub(crate) async fn find(&self, headers: &HeaderMap) -> Result<Option<Arc<Holder>>, Error> {
        let mut values = headers.get_all(&self.header).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Error::AssertionWrong("the header is repeated".to_owned()));
        }
        let text = value.to_str().unwrap_or_default();
        // oauth2-proxy sends the token as `Authorization: Bearer …`.
        let token = match text.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim(),
            _ => text.trim(),
        };
        // A token of tagtrail.toml in the same header is none of the proxy's.
        if token.matches('.').count() != 2 {
            return Ok(None);
        }
        let claims: Map<String, Value> = match self.verifier.verify(token).await {
            Ok(claims) => claims,
            Err(Refusal::Refused(why)) => return Err(Error::AssertionWrong(why)),
            Err(Refusal::KeysUnavailable) => return Err(Error::KeysUnavailable),
        };
        self.holder(&claims).map(|holder| Some(Arc::new(holder)))
    }

    fn holder(&self, claims: &Map<String, Value>) -> Result<Holder, Error> {
        let name = claims.get(&self.settings.name).and_then(Value::as_str);
        let name = name.map(|name| clean_text(name, LONGEST));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let why = format!(
                "it has no claim {:?}, which names the person",
                self.settings.name
            );
            return Err(Error::AssertionWrong(why));
        };
        // An address that nobody has proved is a name that anybody may take.
        if self.settings.name == "email"
            && claims.get("email_verified") == Some(&Value::Bool(false))
        {
            return Err(Error::AssertionWrong(
                "the address is not verified".to_owned(),
            ));
        }
        let groups: Vec<&str> = match claims.get(&self.settings.groups) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group],
            _ => Vec::new(),
        };
        let is_in = |listed: &[String]| listed.iter().any(|one| groups.contains(&one.as_str()));
        let role = match () {
            () if is_in(&self.settings.operate) => Role::Operate,
            () if is_in(&self.settings.approve) => Role::Approve,
            () => Role::Read,
        };
        Ok(Holder::person(name, role))
    }
}
