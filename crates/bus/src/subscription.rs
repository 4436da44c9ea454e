//! A core NATS subject of somebody else's: heard, without any promise. What is said while nobody listens is lost.

use std::path::Path;

use async_nats::{ConnectOptions, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::{BusError, first_connection};

/// Messages that wait to be taken; more are dropped by the client, and counted by the server.
const WAITING: usize = 4096;

/// Somebody's subject.
#[derive(Debug)]
pub struct Subscription {
    messages: Subscriber,
    // Ends the subscription when it is dropped.
    _client: async_nats::Client,
}

impl Subscription {
    /// Connects to `url` and listens to `subject`. Of all who name the same `group`, one gets each message.
    ///
    /// # Errors
    /// [`BusError::Refused`] for wrong credentials, [`BusError::Unsuitable`] for a wrong address or an unreadable file of
    /// credentials, [`BusError::Stopped`] when `shutdown` fires first. A server that does not answer is waited for.
    pub async fn listen(
        url: &str,
        subject: &str,
        group: &str,
        credentials: Option<&Path>,
        shutdown: &CancellationToken,
    ) -> Result<Subscription, BusError> {
        let address = Address::parse(url, group)?;
        let options = address.with_credentials(address.common(ConnectOptions::new()));
        let options = match credentials {
            Some(path) => options.credentials_file(path).await.map_err(|error| {
                BusError::Unsuitable(format!("{} can't be read: {error}", path.display()))
            })?,
            None => options,
        };
        let options = options.name(group).subscription_capacity(WAITING);
        let client = first_connection(options, &address, shutdown).await?;
        let messages = client
            .queue_subscribe(subject.to_owned(), group.to_owned())
            .await
            .map_err(|error| BusError::Unreachable(error.to_string()))?;
        // So that whoever publishes after this returns is heard.
        client
            .flush()
            .await
            .map_err(|error| BusError::Unreachable(error.to_string()))?;
        Ok(Subscription {
            messages,
            _client: client,
        })
    }

    /// Waits for the next message; the client connects again by itself. `None`: there will be no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.next().await.map(|message| message.payload)
    }
}
