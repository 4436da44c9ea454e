//! Bearer tokens, and the role that each has.

use std::net::SocketAddr;

use anyhow::bail;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::ExposeSecret as _;
use tagtrail_config::{ConfigError, File, Live, Role};

use crate::http::error::Error;

/// Shortest secret, in characters. A shorter secret can be guessed.
const SHORTEST: usize = 16;

/// The tokens of `tagtrail.toml`.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    name: String,
    live: Live,
    role: Role,
}

impl Tokens {
    /// Reads the tokens and their secrets.
    pub(crate) fn read(file: &File) -> Result<Tokens, ConfigError> {
        let token = |entry: &tagtrail_config::Token| {
            let wrong =
                |message: String| file.error_at(entry.name.span().start, "token.secret", message);
            let secrets = entry
                .secret
                .read()
                .map_err(|error| wrong(tagtrail_daemon::chain(&error)))?;
            if secrets
                .iter()
                .any(|secret| secret.expose_secret().len() < SHORTEST)
            {
                return Err(wrong(format!(
                    "is shorter than {SHORTEST} characters; make one with `openssl rand -hex 32`"
                )));
            }
            Ok(Token {
                name: entry.name.get_ref().to_string(),
                live: Live::new(&secrets),
                role: entry.role,
            })
        };
        Ok(Tokens(
            file.token.iter().map(token).collect::<Result<_, _>>()?,
        ))
    }

    /// Makes tokens of names, secrets and roles.
    #[cfg(test)]
    pub(crate) fn of(tokens: &[(&str, &str, Role)]) -> Tokens {
        let token = |(name, secret, role): &(&str, &str, Role)| Token {
            name: (*name).to_owned(),
            live: Live::new(&[(*secret).to_owned().into()]),
            role: *role,
        };
        Tokens(tokens.iter().map(token).collect())
    }

    /// Refuses an address that other machines can reach, unless there is a token.
    pub(crate) fn check(&self, address: SocketAddr) -> anyhow::Result<()> {
        if self.0.is_empty() && !address.ip().is_loopback() {
            bail!(
                "other machines can reach {address}, and tagtrail.toml has no [[token]]: add one \
                 (name, secret, role = \"read\" or \"operate\"), or listen on 127.0.0.1"
            );
        }
        Ok(())
    }

    /// Checks that the headers carry a token with this role. Without tokens every request is
    /// admitted.
    pub(crate) fn admit(&self, headers: &HeaderMap, role: Role) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let sent = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked("bearer ".len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token.trim_ascii());
        let sent = sent.ok_or(Error::Unauthenticated)?;
        // Compares all tokens, so that the time does not depend on the token that matches.
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.live.is(sent)) {
                found = Some(token);
            }
        }
        let token = found.ok_or(Error::Unauthenticated)?;
        if token.role < role {
            tracing::warn!(
                token = token.name,
                "refused a request: the token may only read"
            );
            return Err(Error::Forbidden);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tokens() -> Tokens {
        Tokens::of(&[
            ("dashboard", "read-only-secret", Role::Read),
            ("deployer", "operating-secret", Role::Operate),
        ])
    }

    fn admit(tokens: &Tokens, sent: Option<&str>, role: Role) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(sent) = sent {
            headers.insert(AUTHORIZATION, sent.parse().unwrap());
        }
        tokens.admit(&headers, role).map_err(|error| match error {
            Error::Unauthenticated => "unauthenticated",
            Error::Forbidden => "forbidden",
            _ => "?",
        })
    }

    #[test]
    fn a_token_may_do_what_its_role_allows() {
        let tokens = tokens();
        for (sent, read, operate) in [
            (Some("Bearer read-only-secret"), Ok(()), Err("forbidden")),
            (Some("bearer  operating-secret "), Ok(()), Ok(())),
            (
                Some("Bearer wrong"),
                Err("unauthenticated"),
                Err("unauthenticated"),
            ),
            (
                Some("Bearer "),
                Err("unauthenticated"),
                Err("unauthenticated"),
            ),
            (
                Some("operating-secret"),
                Err("unauthenticated"),
                Err("unauthenticated"),
            ),
            (
                Some("Basic operating-secret"),
                Err("unauthenticated"),
                Err("unauthenticated"),
            ),
            (None, Err("unauthenticated"), Err("unauthenticated")),
        ] {
            assert_eq!(admit(&tokens, sent, Role::Read), read, "{sent:?}");
            assert_eq!(admit(&tokens, sent, Role::Operate), operate, "{sent:?}");
        }
    }

    #[test]
    fn without_tokens_only_loopback_is_served() {
        let none = Tokens::default();
        assert_eq!(admit(&none, None, Role::Operate), Ok(()));
        for loopback in ["127.0.0.1:8401", "127.0.0.9:1", "[::1]:8401"] {
            none.check(loopback.parse().unwrap()).unwrap();
        }
        for other in ["0.0.0.0:8401", "[::]:8401", "192.0.2.7:8401"] {
            let address = other.parse().unwrap();
            let error = none.check(address).unwrap_err().to_string();
            assert!(
                error.contains(other) && error.contains("[[token]]"),
                "{error}"
            );
            tokens().check(address).unwrap();
        }
    }

    #[test]
    fn a_short_token_is_refused_with_its_line() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "short").unwrap();
        let text = format!(
            "\n[[token]]\nname = \"ui\"\nsecret = {{ file = \"{}\" }}\nrole = \"read\"\n",
            secret.path().display()
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let error = Tokens::read(&file).unwrap_err().to_string();
        assert_eq!(
            error,
            "tagtrail.toml:3: token.secret: is shorter than 16 characters; make one with `openssl rand -hex 32`"
        );
    }
}
