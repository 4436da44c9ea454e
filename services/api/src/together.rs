//! Questions that wait at the same time are answered by one statement.
//!
//! A question takes Postgres less time than the round trip to it. So while two statements of a kind
//! are on their way, further questions of this kind wait in a queue; the next statement answers all
//! of them. An answer is read after its question came, as if the question were asked alone, and a
//! question that comes alone does not wait.
//!
//! A statement that is slow fails all its questions at its time-out, as does a Postgres that is
//! away. If one of the questions may be the cause of an error, each is asked once more, alone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_history::resolve::{self, Resolution};
use tagtrail_proto::Image;
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::database::Database;
use crate::http::error::Error;
use crate::metrics::Metrics;

/// Most waiting questions of a kind.
const WAITING: usize = 1024;
/// Most questions of a statement.
const SET: usize = 64;
/// Statements of a kind at once. With more of them, each would answer fewer questions.
const ASKERS: usize = 2;
/// Time-out of a set, longer than those of the connection and of the statement. It ends a set if
/// the network to Postgres is cut.
const ANSWER: Duration = Duration::from_secs(8);

/// A kind of questions, which one statement answers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Head,
    At,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Head => "head",
            Kind::At => "at",
        }
    }

    async fn ask(
        self,
        db: &mut PgConnection,
        images: &[&Image],
        times: &[OffsetDateTime],
    ) -> Result<Vec<Resolution>, sqlx::Error> {
        match self {
            Kind::Head => resolve::heads(db, images).await,
            Kind::At => resolve::at_times(db, images, times).await,
        }
    }
}

/// A question that waits. If its client is gone, the receiver of the answer is gone too.
#[derive(Debug)]
struct Waiting {
    image: Image,
    /// Without meaning for [`Kind::Head`].
    at: OffsetDateTime,
    answer: oneshot::Sender<Result<Resolution, Arc<Error>>>,
}

impl Waiting {
    fn tell(self, answer: Result<Resolution, Arc<Error>>) {
        // Without a receiver the client is gone.
        let _ = self.answer.send(answer);
    }
}

/// The queues of questions.
#[derive(Debug, Clone)]
pub(crate) struct Together {
    heads: mpsc::Sender<Waiting>,
    times: mpsc::Sender<Waiting>,
}

impl Together {
    /// Returns the queues, and the askers that answer the questions.
    pub(crate) fn new(database: &Database, metrics: &Metrics) -> (Together, Vec<Asker>) {
        let mut askers = Vec::new();
        let mut queue = |kind| {
            metrics.expect_question(Kind::name(kind));
            let (sender, receiver) = mpsc::channel(WAITING);
            let queue = Arc::new(Mutex::new(receiver));
            askers.extend((0..ASKERS).map(|_| Asker {
                kind,
                queue: Arc::clone(&queue),
                database: database.clone(),
                metrics: metrics.clone(),
            }));
            sender
        };
        let together = Together {
            heads: queue(Kind::Head),
            times: queue(Kind::At),
        };
        (together, askers)
    }

    /// Returns the revision of an image in force now.
    pub(crate) async fn head(&self, image: &Image) -> Result<Resolution, Error> {
        self.ask(Kind::Head, image, OffsetDateTime::UNIX_EPOCH)
            .await
    }

    /// Returns the revision of an image in force at a time.
    pub(crate) async fn at(&self, image: &Image, at: OffsetDateTime) -> Result<Resolution, Error> {
        self.ask(Kind::At, image, at).await
    }

    async fn ask(
        &self,
        kind: Kind,
        image: &Image,
        at: OffsetDateTime,
    ) -> Result<Resolution, Error> {
        let queue = match kind {
            Kind::Head => &self.heads,
            Kind::At => &self.times,
        };
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting {
            image: image.clone(),
            at,
            answer: sender,
        };
        queue
            .try_send(waiting)
            .map_err(|_| Error::TooManyQuestions)?;
        match answer.await {
            Ok(Ok(resolution)) => Ok(resolution),
            Ok(Err(error)) => Err(Error::OfAll(error)),
            // The asker is gone: the process ends.
            Err(_) => Err(Error::NotConnected),
        }
    }
}

/// Asks the questions of a queue.
#[derive(Debug)]
pub(crate) struct Asker {
    kind: Kind,
    queue: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    database: Database,
    metrics: Metrics,
}

impl Asker {
    /// Answers questions until no request is left that could ask one.
    ///
    /// # Errors
    /// None: an error is an answer.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut set = Vec::with_capacity(SET);
        while self.take(&mut set).await {
            set.retain(|waiting| !waiting.answer.is_closed());
            if !set.is_empty() {
                self.answer(&mut set).await;
            }
        }
        Ok(())
    }

    /// Waits for questions and takes all that wait, up to [`SET`]. `false`: there will be none.
    async fn take(&self, set: &mut Vec<Waiting>) -> bool {
        let mut queue = self.queue.lock().await;
        queue.recv_many(set, SET).await > 0
    }

    async fn answer(&self, set: &mut Vec<Waiting>) {
        self.metrics.asked_together(self.kind.name(), set.len());
        match self.ask(set).await {
            Ok(answers) => {
                for (waiting, answer) in set.drain(..).zip(answers) {
                    waiting.tell(Ok(answer));
                }
            }
            Err(error) if set.len() > 1 && matches!(*error, Error::Store(_)) => {
                self.answer_each(set).await;
            }
            Err(error) => {
                for waiting in set.drain(..) {
                    waiting.tell(Err(Arc::clone(&error)));
                }
            }
        }
    }

    /// Asks each question alone, until Postgres is away.
    async fn answer_each(&self, set: &mut Vec<Waiting>) {
        let mut away = None;
        for waiting in set.drain(..) {
            let answer = match &away {
                Some(error) => Err(Arc::clone(error)),
                None => self.ask(std::slice::from_ref(&waiting)).await,
            };
            if let Err(error) = &answer
                && !matches!(**error, Error::Store(_))
            {
                away = Some(Arc::clone(error));
            }
            waiting.tell(answer.map(|answers| {
                let first = answers.into_iter().next();
                first.unwrap_or(Resolution::Unknown)
            }));
        }
    }

    /// Asks questions by one statement, and logs an error.
    async fn ask(&self, set: &[Waiting]) -> Result<Vec<Resolution>, Arc<Error>> {
        let images: Vec<&Image> = set.iter().map(|waiting| &waiting.image).collect();
        let times: Vec<OffsetDateTime> = set.iter().map(|waiting| waiting.at).collect();
        let question = async |db: &mut PgConnection| self.kind.ask(db, &images, &times).await;
        let answers = tokio::time::timeout(ANSWER, self.database.ask_set(question)).await;
        answers
            .unwrap_or(Err(Error::TooSlow(ANSWER)))
            .map_err(|error| {
                error.log();
                Arc::new(error)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_beyond_the_queue_is_refused_at_once() {
        let metrics = Metrics::new(&tagtrail_daemon::Metrics::default());
        // No asker runs.
        let (together, askers) = Together::new(&Database::default(), &metrics);
        let image: Image = "registry.example.com/shop/web:latest".parse().unwrap();
        let mut waiting: Vec<_> = (0..WAITING)
            .map(|_| Box::pin(together.head(&image)))
            .collect();
        for question in &mut waiting {
            assert!(futures_util::poll!(question).is_pending());
        }
        let refused = together.head(&image).await;
        assert!(
            matches!(refused, Err(Error::TooManyQuestions)),
            "{refused:?}"
        );
        let mut other = Box::pin(together.at(&image, OffsetDateTime::UNIX_EPOCH));
        assert!(futures_util::poll!(&mut other).is_pending());
        drop((waiting, askers));
    }
}
