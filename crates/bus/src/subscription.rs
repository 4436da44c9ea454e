//! Subscriptions to a core NATS subject of another system, which NATS does not store: a message
//! that is published while no instance is subscribed is lost.

use std::path::Path;

use async_nats::{ConnectOptions, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::BusError;
use crate::address::Address;
use crate::wait::{Patience, first_connection};

/// Most received messages that wait in this process; the client drops more.
const WAITING: usize = 4096;

/// A subscription on a connection of its own.
#[derive(Debug)]
pub struct Subscription {
    messages: Subscriber,
    // Dropping it ends the subscription.
    _client: async_nats::Client,
}

impl Subscription {
    /// Connects to `url`, waiting for the server without a limit, and subscribes to `subject`. Each
    /// message goes to one subscriber of the queue group `group`.
    ///
    /// # Errors
    /// [`BusError::Refused`] for wrong credentials, [`BusError::Unsuitable`] for a wrong address or
    /// an unreadable file of credentials, [`BusError::Stopped`] when `shutdown` fires first.
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
        let client = first_connection(options, &address, &mut Patience::until(shutdown)).await?;
        let messages = client
            .queue_subscribe(subject.to_owned(), group.to_owned())
            .await
            .map_err(|error| BusError::Unreachable(error.to_string()))?;
        // The server then knows the subscription, so that no message published after this call is
        // missed.
        client
            .flush()
            .await
            .map_err(|error| BusError::Unreachable(error.to_string()))?;
        Ok(Subscription {
            messages,
            _client: client,
        })
    }

    /// Waits for the next message; the client reconnects by itself. `None`: the subscription has
    /// ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.next().await.map(|message| message.payload)
    }
}
