//! Addresses of NATS, and our credentials there.

use async_nats::{Auth, ConnectOptions, ServerAddr};

use crate::{ANSWER, BusError};

/// The servers of `NATS_URL` with their credentials, and the name that the server shows for our
/// connections.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) name: String,
}

impl Address {
    pub(crate) fn parse(url: &str, name: &str) -> Result<Address, BusError> {
        let servers = url
            .split(',')
            .map(|server| server.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| BusError::Unsuitable("NATS_URL (--nats-url) is not a URL of NATS, such as nats://user:password@host:4222".to_owned()))?;
        Ok(Address {
            servers,
            name: name.to_owned(),
        })
    }

    /// Sets the options that all our connections share.
    pub(crate) fn common(&self, options: ConnectOptions) -> ConnectOptions {
        options
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(std::time::Duration::from_secs(5))
            // A prefix for each service, so that its account can be denied the inboxes of others
            // (deploy/nats/nats.conf).
            .custom_inbox_prefix(format!("_INBOX_{}", self.name))
    }

    /// Returns the credentials of the URL, which the client does not use by itself. The first
    /// server that has credentials decides for all. A user without a password is a token.
    pub(crate) fn auth(&self) -> Auth {
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let mut auth = Auth::new();
        let first = self.servers.iter().find(|server| server.has_user_pass());
        match first.and_then(|server| Some((server.username()?, server.password()))) {
            Some((user, Some(password))) => {
                auth.username = Some(decoded(user));
                auth.password = Some(decoded(password));
            }
            Some((token, None)) => auth.token = Some(decoded(token)),
            None => {}
        }
        auth
    }

    /// Adds the credentials to options whose connection may reconnect.
    pub(crate) fn with_credentials(&self, options: ConnectOptions) -> ConnectOptions {
        match self.auth() {
            Auth {
                username: Some(user),
                password: Some(password),
                ..
            } => options.user_and_password(user, password),
            Auth {
                token: Some(token), ..
            } => options.token(token),
            _ => options,
        }
    }
}
