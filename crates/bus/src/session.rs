//! Sessions: connections that are never made again.
//!
//! The client keeps what it could not write while its connection is down, and writes it as soon as there is a new one. For
//! messages whose order matters that is too late: a server that came back may have lost the end of a stream, and what comes
//! next must be decided by whoever knows what is missing. So such messages go by a session: when it is lost, everything that it
//! had not written is gone with it, and whoever used it starts over on a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream;
use async_nats::{Auth, AuthError, ConnectOptions};
use tokio::sync::{Mutex, watch};

use crate::address::Address;
use crate::publish::{Condition, Message, PublishError, Unacknowledged, send};
use crate::{ANSWER, BusError, context};

/// A connection that lives once. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) context: jetstream::Context,
    alive: watch::Receiver<bool>,
}

/// The session of a process, made when it is needed first and after each loss.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    address: Arc<Address>,
    present: Arc<Mutex<Option<Session>>>,
}

impl Session {
    /// Hands a message to the session. Order between calls is kept; the acknowledgement is awaited by the caller.
    ///
    /// # Errors
    /// [`PublishError`] if it can't even be handed over.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        send(&self.context, message, Condition::None).await
    }

    /// The same for a message that is to be stored only if the last one of its subject has this sequence (0: there is none);
    /// otherwise its acknowledgement is [`PublishError::Fenced`].
    ///
    /// # Errors
    /// As [`Session::send`].
    pub async fn send_after(
        &self,
        message: Message<'_>,
        sequence: u64,
    ) -> Result<Unacknowledged, PublishError> {
        send(&self.context, message, Condition::After(sequence)).await
    }

    /// Resolves when the session is lost.
    pub async fn lost(&self) {
        // Without a sender there is no connection either.
        let _ = self.alive.clone().wait_for(|alive| !alive).await;
    }

    fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }
}

impl Sessions {
    pub(crate) fn new(address: Arc<Address>) -> Sessions {
        Sessions {
            address,
            present: Arc::default(),
        }
    }

    /// The present session, or a new one.
    pub(crate) async fn session(&self) -> Result<Session, BusError> {
        let mut present = self.present.lock().await;
        if let Some(session) = present.as_ref().filter(|session| session.is_alive()) {
            return Ok(session.clone());
        }
        let session = connect(&self.address).await?;
        *present = Some(session.clone());
        Ok(session)
    }
}

async fn connect(address: &Address) -> Result<Session, BusError> {
    let (state, alive) = watch::channel(true);
    let used = Arc::new(AtomicBool::new(false));
    let auth = address.auth();
    // The client has no setting for "never again". It asks for credentials each time, and whoever gets none gives up.
    let options = ConnectOptions::with_auth_callback(move |_nonce| {
        let answer = answer(&auth, &used);
        std::future::ready(answer)
    });
    let options = address
        .common(options)
        .name(format!("tagtrail-{}-session", address.name))
        .reconnect_delay_callback(|_| std::time::Duration::ZERO)
        .max_reconnects(address.servers.len())
        .event_callback(move |event| {
            if matches!(
                event,
                async_nats::Event::Disconnected | async_nats::Event::Closed
            ) {
                state.send_replace(false);
            }
            tracing::debug!("session to NATS: {event}");
            std::future::ready(())
        });
    let client = tokio::time::timeout(ANSWER * 2, options.connect(address.servers.clone()))
        .await
        .map_err(|_| BusError::Unreachable("no session to NATS in time".to_owned()))?
        .map_err(|err| BusError::Unreachable(format!("no session to NATS: {err}")))?;
    Ok(Session {
        context: context(client),
        alive,
    })
}

/// Credentials, the first time that they are asked for by a server that answers.
fn answer(auth: &Auth, used: &AtomicBool) -> Result<Auth, AuthError> {
    if used.swap(true, Ordering::Relaxed) {
        return Err(AuthError::new("a session is connected once"));
    }
    let mut answer = Auth::new();
    answer.username.clone_from(&auth.username);
    answer.password.clone_from(&auth.password);
    answer.token.clone_from(&auth.token);
    Ok(answer)
}
