//! Where NATS is, and who we are to it.

use async_nats::{Auth, ConnectOptions, ServerAddr};

use crate::{ANSWER, BusError};

/// The servers of `NATS_URL` with their credentials, and the name that the server shows for our connections.
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

    /// What every connection of ours is set to.
    pub(crate) fn common(&self, options: ConnectOptions) -> ConnectOptions {
        options
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(std::time::Duration::from_secs(5))
            // Of its own, so that an account can be kept from hearing the answers to others (deploy/nats/nats.conf).
            .custom_inbox_prefix(format!("_INBOX_{}", self.name))
    }

    /// The client does not use the credentials in a URL by itself. Of several servers, the first one's count for all. A user
    /// without a password is a token.
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

    /// The same for a connection that the client may make again.
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
