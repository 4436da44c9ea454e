//! Answers questions: each message of UNRESOLVED asks for the digest of an image.

mod asker;
mod debounce;
mod question;

use std::sync::Arc;
use std::time::Duration;

use tagtrail_bus::consume::ReadError;
use tagtrail_bus::jobs::Jobs;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::{Retry, until};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::postponed::{Admission, Work};
use crate::shared::Shared;
use crate::task::Task;
use asker::Asker;
use debounce::Debounce;
use question::Question;

/// Name of the durable consumer that all instances share.
const NAME: &str = "resolver";
/// The part of readiness.
const HEALTH: &str = "questions";

/// Answers questions until a stop is requested. After an error the consumer is opened again.
pub(crate) async fn run(
    shared: Arc<Shared>,
    returned: mpsc::UnboundedReceiver<Task>,
) -> anyhow::Result<()> {
    let mut questions = Questions {
        returned,
        asker: Asker::new(Arc::clone(&shared)),
        debounce: Debounce::new(shared.pace),
        answers: JoinSet::new(),
    };
    shared.health.register(HEALTH);
    let mut retry = Retry::new("reading UNRESOLVED");
    while !shared.shutdown.is_cancelled() {
        if let Err(error) = questions.read(&shared, &mut retry).await {
            shared.cannot_read(HEALTH, &error);
            let pause = retry.failed(&error);
            shared.sleep(pause).await;
        }
    }
    questions.stop().await;
    shared.bus.flush().await;
    Ok(())
}

/// The questions in hand.
struct Questions {
    /// Postponed questions that are due.
    returned: mpsc::UnboundedReceiver<Task>,
    asker: Asker,
    debounce: Debounce,
    /// The answers under way.
    answers: JoinSet<()>,
}

impl Questions {
    /// Reads questions, and starts the answers that are due, until a stop is requested.
    async fn read(&mut self, shared: &Shared, retry: &mut Retry) -> Result<(), ReadError> {
        let ack_wait = shared.ack_wait;
        let mut jobs = shared.bus.jobs(Stream::Unresolved, NAME, ack_wait).await?;
        shared.health.set(HEALTH, Ok(()));
        let mut checks = interval(Jobs::CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => {
                    jobs.release().await;
                    return Ok(());
                }
                Some(ended) = self.answers.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!("asking a registry panicked; NATS will redeliver the question: {panic}");
                    }
                }
                () = until(self.debounce.next()) => {
                    let due = self.debounce.due(Instant::now());
                    let asker = self.asker.clone();
                    self.answers.spawn(async move { asker.answer_all(due).await });
                }
                _ = checks.tick() => shared.check(&jobs, Work::Question, HEALTH).await?,
                Some(task) = self.returned.recv() => self.take_returned(task).await,
                job = jobs.next() => {
                    let job = job?;
                    retry.succeeded();
                    let task = Task::of_job(job, &shared.postponed);
                    self.take(task, shared).await;
                }
            }
        }
    }

    /// Takes a message of UNRESOLVED. Without a place for its registry it is postponed.
    async fn take(&mut self, task: Task, shared: &Shared) {
        let mut question = match Question::read(task) {
            Ok(question) => question,
            Err(invalid) => return self.asker.quarantine(*invalid).await,
        };
        let registry = &question.image.registry;
        if let Some(client) = shared.registries.get(registry)
            && shared.postponed.is_kept()
        {
            if let Some(rest) = client.resting() {
                return question.wait(rest).await;
            }
            match shared.postponed.admit(Work::Question, registry) {
                Admission::Go(place) => question.task = question.task.with_place(place),
                Admission::Full => return question.wait(Duration::ZERO).await,
            }
        }
        self.debounce.take(question, Instant::now());
    }

    /// Takes a question that was postponed.
    async fn take_returned(&mut self, task: Task) {
        match Question::read(task) {
            Ok(question) => self.debounce.take(question, Instant::now()),
            Err(invalid) => self.asker.quarantine(*invalid).await,
        }
    }

    /// Returns the waiting questions to NATS, for other instances, and finishes the answers under
    /// way.
    async fn stop(mut self) {
        for question in self.debounce.rest() {
            question.task.release().await;
        }
        self.returned.close();
        while let Some(task) = self.returned.recv().await {
            task.release().await;
        }
        while self.answers.join_next().await.is_some() {}
    }
}
