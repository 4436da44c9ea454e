//! Waiting for NATS at the start of a program.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::BusError;
use crate::address::Address;

/// How long a start waits for NATS: until a stop is requested, or up to a deadline.
#[derive(Debug)]
pub(crate) struct Patience {
    shutdown: CancellationToken,
    deadline: Option<Instant>,
    attempt: u32,
}

impl Patience {
    /// Waits until `shutdown` fires; the log names the cause of each failed attempt.
    pub(crate) fn until(shutdown: &CancellationToken) -> Patience {
        Patience {
            shutdown: shutdown.clone(),
            deadline: None,
            attempt: 0,
        }
    }

    /// Waits for `time`, and then fails with the cause of the last failed attempt.
    pub(crate) fn of(time: Duration) -> Patience {
        Patience {
            deadline: Some(Instant::now() + time),
            ..Patience::until(&CancellationToken::new())
        }
    }

    /// Pauses after a failed attempt.
    ///
    /// # Errors
    /// [`BusError::Stopped`] if a stop is requested, [`BusError::Unreachable`] at the deadline.
    pub(crate) async fn pause(&mut self, cause: String) -> Result<(), BusError> {
        tracing::warn!("waiting for NATS: {cause}");
        self.attempt = self.attempt.saturating_add(1);
        let mut pause = tagtrail_daemon::backoff(self.attempt);
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::Unreachable(cause));
            }
            pause = pause.min(left);
        }
        tokio::select! {
            () = self.shutdown.cancelled() => Err(BusError::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

/// Connects, retrying while no server answers. (`async-nats` can retry by itself, but would then
/// retry wrong credentials as well, without reporting them.)
pub(crate) async fn first_connection(
    options: async_nats::ConnectOptions,
    address: &Address,
    patience: &mut Patience,
) -> Result<async_nats::Client, BusError> {
    use async_nats::ConnectErrorKind as Kind;
    loop {
        match options.clone().connect(address.servers.clone()).await {
            Ok(client) => return Ok(client),
            Err(err) => match err.kind() {
                Kind::ServerParse
                | Kind::Authentication
                | Kind::AuthorizationViolation
                | Kind::MaxReconnects => return Err(BusError::Refused(err)),
                // The error of async-nats names the address without its credentials.
                Kind::Dns | Kind::TimedOut | Kind::Tls | Kind::Io => {
                    patience.pause(format!("{err:#}")).await?;
                }
            },
        }
    }
}
