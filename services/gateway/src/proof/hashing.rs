//! Hashing without holding up other requests.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// A body of this size is hashed in less than 1 ms.
const SMALL: usize = 256 << 10;

/// Large bodies are hashed one after another, so that they take one core at most. The sender of
/// such a body may be unauthenticated.
static LARGE: Semaphore = Semaphore::const_new(1);

/// Runs `hash` over a body of `size` bytes. A large body is hashed on a thread of its own.
pub(crate) async fn off_thread<T: Send + 'static>(
    size: usize,
    hash: impl FnOnce() -> T + Send + 'static,
) -> T {
    if size <= SMALL {
        return hash();
    }
    let permit = LARGE.acquire().await;
    let hashed = spawn_blocking(move || {
        // The sender may hang up meanwhile: the permit stays with the work.
        let _permit = permit;
        hash()
    });
    match hashed.await {
        Ok(hashed) => hashed,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process stops.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the tests await each task by itself"
)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// The test runs on one thread, as `#[tokio::test]` does.
    #[tokio::test]
    async fn other_tasks_run_while_a_large_body_is_hashed() {
        let (go, wait) = mpsc::channel();
        let large = tokio::spawn(off_thread(SMALL + 1, move || wait.recv_timeout(LONG)));
        let second = tokio::spawn(off_thread(SMALL + 1, || "second"));
        assert_eq!(off_thread(SMALL, || "small").await, "small");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!second.is_finished(), "two large bodies at once");
        go.send("large").unwrap();
        assert_eq!(large.await.unwrap(), Ok("large"));
        assert_eq!(second.await.unwrap(), "second");
    }

    #[tokio::test]
    async fn a_sender_that_hangs_up_does_not_let_another_body_in() {
        let (go, wait) = mpsc::channel();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let large = tokio::spawn(off_thread(SMALL + 1, move || {
            let _ = begun.send(());
            wait.recv_timeout(LONG)
        }));
        begins.await.unwrap();
        large.abort();
        assert!(large.await.unwrap_err().is_cancelled());
        let second = tokio::spawn(off_thread(SMALL + 1, || "second"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!second.is_finished(), "two large bodies at once");
        go.send("large").unwrap();
        assert_eq!(second.await.unwrap(), "second");
    }
}
