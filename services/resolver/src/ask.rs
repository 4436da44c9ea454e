//! Answers questions: each message of UNRESOLVED asks for the digest of an image.

mod asker;
mod debounce;
mod question;

use std::sync::Arc;

use tagtrail_bus::topology::Stream;
use tagtrail_daemon::backoff;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::shared::Shared;
use asker::Asker;
use debounce::Debounce;
use question::Question;

/// Name of the durable consumer that all instances share.
const NAME: &str = "resolver";

/// Answers questions until a stop is requested. After an error the consumer is opened again.
pub(crate) async fn run(shared: Arc<Shared>) -> anyhow::Result<()> {
    let asker = Asker::new(Arc::clone(&shared));
    let mut debounce = Debounce::new(shared.pace);
    let mut answers: JoinSet<()> = JoinSet::new();
    let mut failures = 0;
    while !shared.shutdown.is_cancelled() {
        let mut jobs = match shared
            .bus
            .jobs(Stream::Unresolved, NAME, shared.pace.unheard)
            .await
        {
            Ok(jobs) => jobs,
            Err(error) => {
                failures += 1;
                tracing::warn!("opening UNRESOLVED again: {error}");
                shared.sleep(backoff(failures)).await;
                continue;
            }
        };
        loop {
            let due = debounce.next();
            tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => {
                    jobs.release().await;
                    break;
                }
                Some(ended) = answers.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!("asking a registry panicked; NATS will redeliver the question: {panic}");
                    }
                }
                () = until(due) => {
                    for (_, questions) in debounce.due(Instant::now()) {
                        let asker = asker.clone();
                        answers.spawn(async move { asker.answer(questions).await });
                    }
                }
                job = jobs.next() => match job {
                    Ok(job) => {
                        failures = 0;
                        match Question::read(job) {
                            Ok(question) => debounce.take(question, Instant::now()),
                            Err(invalid) => asker.quarantine(*invalid).await,
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!("reading UNRESOLVED again: {error}");
                        tokio::time::sleep(backoff(failures)).await;
                        break;
                    }
                }
            }
        }
    }
    // Waiting questions go back to NATS, for other instances; those under way are finished.
    for question in debounce.rest() {
        question.job.nak(std::time::Duration::ZERO).await;
    }
    while answers.join_next().await.is_some() {}
    shared.bus.flush().await;
    Ok(())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
