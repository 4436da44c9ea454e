//! Bearer tokens, and the role that each has.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tagtrail_config::{
    Broken, ConfigError, File, Fresh, Live, Role, SHORT, Table, TriggerGlob, is_short,
};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, optional, text};
use crate::http::session;

/// A browser's `EventSource` can set no header. The name is that of RFC 6750, section 2.3. An
/// operation that lists this parameter takes a token from the query.
pub(crate) const ACCESS_TOKEN: Parameter = optional(
    "access_token",
    "A token with the role `read`, for an `EventSource`, which can send no `Authorization` header. Proxies may log addresses: prefer the header.",
    "reader-0123456789abcdef",
    text,
);

/// The token that a request carries. Without `Debug`: nothing may log it.
pub(crate) enum Sent<'a> {
    Header(&'a [u8]),
    /// In the query, where a proxy or a browser may log it.
    Query(Cow<'a, str>),
    /// Several `Authorization` headers: proxies differ in the one that they take.
    Several,
    Nothing,
}

impl<'a> Sent<'a> {
    /// Finds the token. `query`: the query of an operation that takes a token there; a header
    /// takes precedence.
    pub(crate) fn find(headers: &'a HeaderMap, query: Option<&'a str>) -> Sent<'a> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        if let Some(value) = values.next() {
            if values.next().is_some() {
                return Sent::Several;
            }
            return match value.as_bytes().split_at_checked("bearer ".len()) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                    Sent::Header(token.trim_ascii())
                }
                _ => Sent::Nothing,
            };
        }
        form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .find(|(name, _)| name == ACCESS_TOKEN.name)
            .map_or(Sent::Nothing, |(_, token)| Sent::Query(token))
    }
}

/// The tokens of `tagtrail.toml`.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    good: Vec<Token>,
    /// Whether the file has a token. With broken ones alone, nobody is admitted.
    required: bool,
}

#[derive(Debug)]
struct Token {
    live: Fresh<Live>,
    holder: Arc<Holder>,
}

/// The holder of a token, as far as an operation needs to know.
#[derive(Debug)]
pub(crate) struct Holder {
    /// The name of the token.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The triggers on which the holder may act. `None`: the file does not say.
    pub(crate) triggers: Option<Vec<TriggerGlob>>,
    /// The triggers that carry the name of the token: on these alone acts a token without
    /// `triggers`, if there is one.
    /// `None`: the holder is a person, who acts on all.
    pub(crate) own: Option<[TriggerGlob; 2]>,
}

impl Tokens {
    /// Reads the tokens and their secrets. A broken token admits nobody, and is returned.
    pub(crate) fn read(file: &File) -> (Tokens, Vec<Broken>) {
        let mut broken: Vec<Broken> = file.broken_of(Table::Token).cloned().collect();
        let mut good = Vec::with_capacity(file.token.len());
        let token = |entry: &tagtrail_config::Token| {
            let wrong =
                |message: String| file.error_at(entry.name.span().start, "token.secret", message);
            let (name, read) = (entry.name.get_ref().to_string(), entry.secret.clone());
            let make = move || {
                let secrets = read.read();
                let secrets = secrets.map_err(|error| tagtrail_daemon::chain(&error))?;
                match secrets.iter().any(is_short) {
                    true => Err(SHORT.to_owned()),
                    false => Ok(Live::new(&secrets)),
                }
            };
            let live = Fresh::new(format!("token {name}"), entry.secret.kept().to_vec(), make);
            Ok::<_, ConfigError>(Token {
                live: live.map_err(wrong)?,
                holder: Arc::new(Holder {
                    name,
                    role: entry.role,
                    triggers: entry.triggers.clone(),
                    own: Some(entry.own()),
                }),
            })
        };
        for entry in &file.token {
            match token(entry) {
                Ok(token) => good.push(token),
                Err(problem) => {
                    broken.push(Broken::new(
                        Table::Token,
                        entry.name.get_ref().as_ref(),
                        problem,
                    ));
                }
            }
        }
        let tokens = Tokens {
            required: !good.is_empty() || !broken.is_empty(),
            good,
        };
        (tokens, broken)
    }

    /// Makes tokens of names, secrets and roles.
    #[cfg(test)]
    pub(crate) fn of(tokens: &[(&str, &str, Role)]) -> Tokens {
        let token = |(name, secret, role): &(&str, &str, Role)| Token {
            live: Live::new(&[(*secret).to_owned().into()]).into(),
            holder: Arc::new(Holder {
                name: (*name).to_owned(),
                role: *role,
                triggers: Some(vec!["*".to_owned().try_into().unwrap()]),
                own: Some(["none", "none-*"].map(|glob| glob.to_owned().try_into().unwrap())),
            }),
        };
        Tokens {
            good: tokens.iter().map(token).collect(),
            required: true,
        }
    }

    /// Refuses an address that other machines can reach, unless there is a token.
    pub(crate) fn check(&self, address: SocketAddr) -> anyhow::Result<()> {
        if !self.required && !address.ip().is_loopback() {
            bail!(
                "other machines can reach {address}, and tagtrail.toml has no [[token]]: add one \
                 (name, secret, role = \"read\" or \"operate\"), or listen on 127.0.0.1"
            );
        }
        Ok(())
    }

    /// Whether the API admits every request.
    pub(crate) fn is_empty(&self) -> bool {
        !self.required
    }

    /// Checks that the token has this role, and returns its holder. Without tokens every request is
    /// admitted.
    pub(crate) fn admit(&self, sent: &Sent<'_>, role: Role) -> Result<Option<&Arc<Holder>>, Error> {
        if !self.required {
            return Ok(None);
        }
        let (secret, in_query) = match sent {
            Sent::Header(secret) => (*secret, false),
            Sent::Query(secret) => (secret.as_bytes(), true),
            Sent::Several => return Err(Error::HeaderRepeated),
            Sent::Nothing => return Err(Error::Unauthenticated),
        };
        let holder = &self.find(secret).ok_or(Error::WrongToken)?.holder;
        if in_query && holder.role != Role::Read {
            return Err(Error::TokenInQuery {
                token: holder.name.clone(),
            });
        }
        holder.check(role)?;
        Ok(Some(holder))
    }

    /// Compares all tokens, so that the time does not depend on the token that matches.
    fn find(&self, secret: &[u8]) -> Option<&Token> {
        let mut found = None;
        for token in &self.good {
            if bool::from(token.live.get().is(secret)) {
                found = Some(token);
            }
        }
        found
    }

    /// Exchanges a token for the value of a cookie, for a person who may read.
    pub(crate) fn sign_in(&self, secret: &[u8], now: OffsetDateTime) -> Result<String, Error> {
        let token = self.find(secret).ok_or(Error::WrongToken)?;
        token.holder.check(Role::Read)?;
        let value = session::write(&token.holder.name, &token.live.get(), now);
        value.ok_or(Error::WrongToken)
    }

    /// Returns the holder of the token whose session a browser shows, if the session lasts.
    pub(crate) fn session(&self, headers: &HeaderMap, now: OffsetDateTime) -> Option<&Arc<Holder>> {
        let shown = session::find(headers)?;
        let named = |token: &&Token| token.holder.name == shown.name;
        let token = self.good.iter().find(named)?;
        let holds = shown.holds(&token.live.get(), now) && token.holder.role.includes(Role::Read);
        holds.then_some(&token.holder)
    }
}

impl Holder {
    /// Returns a person whom a proxy has signed in, and whose groups decide on the role.
    pub(crate) fn person(name: String, role: Role) -> Holder {
        Holder {
            name,
            role,
            triggers: None,
            own: None,
        }
    }

    /// Returns whether a pattern of the token `covers` the object of the act. A token without
    /// patterns acts on all, unless triggers carry its name (`named`): then on these.
    pub(crate) fn may_act(&self, named: bool, covers: impl Fn(&TriggerGlob) -> bool) -> bool {
        match (&self.triggers, &self.own) {
            (Some(listed), _) => listed.iter().any(covers),
            (None, Some(own)) if named => own.iter().any(covers),
            (None, _) => true,
        }
    }

    /// Checks that the token has this role.
    pub(crate) fn check(&self, needed: Role) -> Result<(), Error> {
        match self.role.includes(needed) {
            true => Ok(()),
            false => Err(Error::Forbidden {
                token: self.name.clone(),
                role: self.role,
                needed,
            }),
        }
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
        code(tokens.admit(&Sent::find(&headers, None), role))
    }

    #[test]
    fn a_wrong_token_is_told_apart_from_a_missing_one() {
        let tokens = tokens();
        let text = |sent: &Sent<'_>| tokens.admit(sent, Role::Read).unwrap_err().to_string();
        let none = text(&Sent::Nothing);
        let wrong = text(&Sent::Header(b"read-only-secre"));
        assert!(none.starts_with("send ") && wrong.contains("does not match"));
    }

    fn code(outcome: Result<Option<&Arc<Holder>>, Error>) -> Result<(), &'static str> {
        outcome.map(drop).map_err(|error| match error {
            Error::Unauthenticated | Error::WrongToken => "unauthenticated",
            Error::Forbidden { .. } => "forbidden",
            Error::TokenInQuery { .. } => "in query",
            Error::HeaderRepeated => "repeated",
            _ => "?",
        })
    }

    #[test]
    fn an_address_may_carry_only_a_token_that_reads() {
        let tokens = tokens();
        let headers = HeaderMap::new();
        for (query, expected) in [
            ("access_token=read-only-secret", Ok(())),
            ("since=x&access_token=read%2Donly-secret&since", Ok(())),
            ("access_token=operating-secret", Err("in query")),
            ("access_token=wrong", Err("unauthenticated")),
            ("access_token=", Err("unauthenticated")),
            ("token=read-only-secret", Err("unauthenticated")),
        ] {
            let sent = Sent::find(&headers, Some(query));
            assert_eq!(code(tokens.admit(&sent, Role::Read)), expected, "{query}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer wrong".parse().unwrap());
        let sent = Sent::find(&headers, Some("access_token=read-only-secret"));
        assert_eq!(
            code(tokens.admit(&sent, Role::Read)),
            Err("unauthenticated")
        );
    }

    #[test]
    fn a_token_is_sent_once() {
        let right = "Bearer operating-secret";
        for second in ["Bearer wrong", right] {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, right.parse().unwrap());
            headers.append(AUTHORIZATION, second.parse().unwrap());
            let sent = Sent::find(&headers, None);
            assert_eq!(code(tokens().admit(&sent, Role::Read)), Err("repeated"));
            assert_eq!(code(Tokens::default().admit(&sent, Role::Read)), Ok(()));
        }
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
    fn a_broken_token_admits_nobody_and_leaves_the_others() {
        let text = "[[token]]\nname = \"ui\"\nsecret = { env = \"TAGTRAIL_NEVER_SET\" }\nrole = \"read\"\n";
        for text in [text.to_owned(), text.replace("\"read\"", "\"reed\"")] {
            let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
            let (tokens, broken) = Tokens::read(&file);
            assert_eq!(broken.len(), 1);
            assert!(!tokens.is_empty());
            assert_eq!(admit(&tokens, None, Role::Read), Err("unauthenticated"));
            let sent = Some("Bearer read-only-secret");
            assert_eq!(admit(&tokens, sent, Role::Read), Err("unauthenticated"));
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
        let error = Tokens::read(&file).1[0].problem.to_string();
        assert_eq!(
            error,
            "tagtrail.toml:3: token.secret: is shorter than 16 characters, and can be guessed; make one with `openssl rand -hex 32`"
        );
    }
}
