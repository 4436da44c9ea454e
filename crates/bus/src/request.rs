//! Requests of one service to another, over core NATS: nothing is stored, and a request that nobody
//! answers in time is an error.

use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::{Bus, BusError};

/// The requests that come to a service.
#[derive(Debug)]
pub struct Requests {
    messages: Subscriber,
    client: async_nats::Client,
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// The body.
    pub payload: Bytes,
    reply: Option<async_nats::Subject>,
    client: async_nats::Client,
}

impl Bus {
    /// Sends a request, and waits for the answer of one instance.
    ///
    /// # Errors
    /// [`BusError::Unreachable`]: no instance answered in this time.
    pub async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        time: Duration,
    ) -> Result<Bytes, BusError> {
        let client = self.context.client();
        let asking = client.request(subject.to_owned(), payload);
        match tokio::time::timeout(time, asking).await {
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) => Err(BusError::Unreachable(error.to_string())),
            Err(_) => Err(BusError::Unreachable(format!("no answer in {time:?}"))),
        }
    }

    /// Receives the requests on a subject, each at one instance of the group.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn requests(&self, subject: &str, group: &str) -> Result<Requests, BusError> {
        let client = self.context.client();
        let messages = client
            .queue_subscribe(subject.to_owned(), group.to_owned())
            .await;
        Ok(Requests {
            messages: messages.map_err(|error| BusError::Unreachable(error.to_string()))?,
            client,
        })
    }
}

impl Requests {
    /// Waits for the next request. `None`: the subscription has ended.
    pub async fn next(&mut self) -> Option<Request> {
        let message = self.messages.next().await?;
        Some(Request {
            payload: message.payload,
            reply: message.reply,
            client: self.client.clone(),
        })
    }
}

impl Request {
    /// Answers the request. An answer that is lost is a time-out at the other end.
    pub async fn answer(self, payload: Bytes) {
        if let Some(reply) = self.reply {
            let _ = self.client.publish(reply, payload).await;
        }
    }
}
