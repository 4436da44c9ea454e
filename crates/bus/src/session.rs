//! Sessions: connections that never reconnect.
//!
//! While disconnected, the client buffers messages and writes them to its next connection. For
//! ordered messages that is wrong: a restarted server may have lost the end of a stream, and the
//! publisher must first find out which messages are missing. So ordered messages go by a session: a
//! lost session drops its unwritten messages, and the publisher starts over on a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::jetstream;
use async_nats::{Auth, AuthError, ConnectOptions};
use tokio::sync::{Mutex, watch};

use crate::address::Address;
use crate::publish::{Condition, Message, PublishError, Unacknowledged, send};
use crate::{ANSWER, BusError, context, server};

/// A connection that never reconnects. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) context: jetstream::Context,
    alive: watch::Receiver<bool>,
    /// The greatest sequence of REVISIONS that the server acknowledged by this session.
    pub(crate) acknowledged: Arc<AtomicU64>,
}

/// The session of a process, opened at the first use and at the first use after each loss.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    address: Arc<Address>,
    present: Arc<Mutex<Option<Session>>>,
}

impl Session {
    /// Sends a message, in the order of the calls; the caller awaits the acknowledgement.
    ///
    /// # Errors
    /// [`PublishError`] if the client does not accept the message.
    pub async fn send(&self, message: Message<'_>) -> Result<Unacknowledged, PublishError> {
        send(&self.context, message, Condition::None).await
    }

    /// Sends a message that the server stores only if the last message of its subject has this
    /// sequence (0: the subject has none). Otherwise the acknowledgement is
    /// [`PublishError::Fenced`].
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
        // An error means that the sender is gone, and the connection with it.
        let _ = self.alive.clone().wait_for(|alive| !alive).await;
    }

    /// Returns the greatest sequence of REVISIONS that the server acknowledged to a fence of this
    /// session; 0 before the first.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Notes an acknowledged sequence of REVISIONS.
    pub(crate) fn note_acknowledged(&self, sequence: u64) {
        self.acknowledged.fetch_max(sequence, Ordering::Relaxed);
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

    /// Returns the present session, or opens one.
    ///
    /// # Errors
    /// [`BusError::Unreachable`], or [`BusError::Unsuitable`] if the server is too old.
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
    // The client has no setting against reconnecting. It asks for credentials before each
    // connection, and gives up when it gets none.
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
            tracing::debug!("session with NATS: {event}");
            std::future::ready(())
        });
    let client = tokio::time::timeout(ANSWER * 2, options.connect(address.servers.clone()))
        .await
        .map_err(|_| BusError::Unreachable("no session with NATS in time".to_owned()))?
        .map_err(|err| BusError::Unreachable(format!("no session with NATS: {err}")))?;
    // The server may have been replaced since the first connection.
    server::check(&client)?;
    Ok(Session {
        context: context(client),
        alive,
        acknowledged: Arc::default(),
    })
}

/// Returns the credentials at the first call, and an error at every later one.
fn answer(auth: &Auth, used: &AtomicBool) -> Result<Auth, AuthError> {
    if used.swap(true, Ordering::Relaxed) {
        return Err(AuthError::new("a session connects once"));
    }
    let mut answer = Auth::new();
    answer.username.clone_from(&auth.username);
    answer.password.clone_from(&auth.password);
    answer.token.clone_from(&auth.token);
    Ok(answer)
}
