//! Asks the registry of an image for its digest, and publishes the answer to PUSHES.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Digest, Image, Name, Origin, Push, Quarantined, Subject, clean_text};
use tagtrail_registry::{AskError, Descriptor, RegistryClient};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::question::{InvalidMessage, Question};
use crate::answer::{Occasion, effective_from, publish, push_of};
use crate::shared::Shared;
use crate::store::Head;

/// Time that answers under way have after a stop request.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Lookups that must find a tag missing before the asker reports a deletion: registries send the
/// event before they link the tag, and replicas lag.
const ABSENT_LOOKUPS: u32 = 4;

/// As [`ABSENT_LOOKUPS`], if all questions are re-checks: the registry reported the tag a while
/// ago, and a deletion too.
const ABSENT_RECHECKS: u32 = 2;

/// The circumstances of a request.
struct AskContext<'a> {
    /// The number of deliveries of the question.
    attempt: u32,
    /// The answer that history already has.
    known: Option<&'a Option<Digest>>,
    /// A second look follows.
    look_again: bool,
    /// Lookups that must find the tag missing.
    lookups: u32,
    /// The pause between lookups, if not the one after a failure.
    until_lookup: Option<Duration>,
    /// The effective time of the head.
    head_at: Option<OffsetDateTime>,
}

/// The task that answers questions about an image.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    shared: Arc<Shared>,
}

/// The next step for the questions about an image.
enum AskOutcome {
    /// End the questions, as answered.
    Done,
    /// Put the questions off, to ask again after a pause.
    Again(Duration),
}

impl Asker {
    pub(super) fn new(shared: Arc<Shared>) -> Asker {
        Asker { shared }
    }

    /// Answers the questions about several images, all at once.
    pub(super) async fn answer_all(&self, due: Vec<(Image, Vec<Question>)>) {
        let asked: Vec<Image> = due
            .iter()
            .map(|(image, _)| image)
            .filter(|image| self.shared.registries.contains_key(&image.registry))
            .cloned()
            .collect();
        // The heads before the request: a push that arrives meanwhile is newer than the answer.
        let heads = match asked.is_empty() {
            true => HashMap::new(),
            false => match self.heads(&asked).await {
                Some(heads) => heads,
                None => {
                    // Postgres is the same for all questions, so a growing pause would help nobody.
                    for question in due.into_iter().flat_map(|(_, questions)| questions) {
                        question.later(self.shared.pace.first).await;
                    }
                    return;
                }
            },
        };
        let answers = due
            .into_iter()
            .map(|(image, questions)| self.answer(questions, heads.get(&image)));
        join_all(answers).await;
    }

    /// Returns the heads of images. `None`: Postgres does not answer, or a stop was requested.
    async fn heads(&self, images: &[Image]) -> Option<HashMap<Image, Head>> {
        let found = tokio::select! {
            biased;
            found = self.shared.heads.of(images) => found,
            () = self.stopped() => return None,
        };
        found
            .inspect_err(|error| {
                let images = images.len();
                tracing::warn!(
                    "the heads of {images} images could not be read; asking again: {error}"
                );
            })
            .ok()
    }

    /// Answers all questions about an image with a single request.
    async fn answer(&self, mut questions: Vec<Question>, head: Option<&Head>) {
        let all_observed = questions.iter().all(Question::is_observation);
        if all_observed && self.is_needless(&questions, head) {
            for question in questions {
                question.task.done().await;
            }
            return;
        }
        // All ask for the digest now. The push names source and actor of the last question; an
        // event comes after pulls.
        questions.sort_by_key(|question| !question.is_observation());
        let Some(last) = questions.last() else { return };
        let attempt = questions
            .iter()
            .map(|question| question.task.attempt)
            .max()
            .unwrap_or(1);
        let all = |is: fn(&Question) -> bool| questions.iter().all(is);
        let only_rechecks = all(|question| question.head_at().is_some());
        let context = AskContext {
            attempt,
            // If all are second looks or observations, publish only a changed answer.
            known: match head {
                Some(head) if all_observed => Some(&head.digest),
                _ => all(Question::is_second_look).then_some(&last.push.digest),
            },
            look_again: !all(|question| question.is_second_look() || question.is_observation()),
            lookups: match head {
                // History has the tag as deleted: a missing tag is no surprise.
                Some(head) if head.digest.is_none() => 1,
                _ if only_rechecks => ABSENT_RECHECKS,
                _ => ABSENT_LOOKUPS,
            },
            // A question that comes again waits for a quiet tag besides.
            until_lookup: only_rechecks.then_some(self.shared.pace.quiet / 2),
            head_at: questions
                .iter()
                .filter_map(Question::head_at)
                .chain(head.map(|head| head.at))
                .max(),
        };
        if all_observed {
            self.shared.metrics.observed("asked", questions.len());
        }
        let outcome = match self.shared.registries.get(&last.image.registry) {
            Some(registry) => self.ask(&registry, last, context).await,
            None => {
                // Without a registry, re-checks and second looks are optional: drop them.
                let (rest, unanswered): (Vec<_>, Vec<_>) =
                    questions.into_iter().partition(|question| {
                        question.is_recheck()
                            || question.is_second_look()
                            || question.is_observation()
                    });
                for question in rest {
                    question.task.done().await;
                }
                if !unanswered.is_empty() {
                    self.shared.metrics.count("", "not_configured");
                }
                for question in unanswered {
                    self.quarantine(not_configured(question)).await;
                }
                return;
            }
        };
        for question in questions {
            match outcome {
                AskOutcome::Done => {
                    FailPoint::ResolverPublished.pass();
                    question.task.done().await;
                    FailPoint::ResolverAcknowledged.pass();
                }
                AskOutcome::Again(pause) => question.later(pause).await,
            }
        }
    }

    /// Returns whether observations of an image need no answer: history has the digest, or nothing
    /// can be asked or compared.
    fn is_needless(&self, observations: &[Question], head: Option<&Head>) -> bool {
        let Some(first) = observations.first() else {
            return true;
        };
        let registry = &first.image.registry;
        let as_known = |head: &Head| {
            observations
                .iter()
                .all(|seen| seen.push.digest == head.digest)
        };
        let outcome = if !self.shared.registries.contains_key(registry) {
            "not_configured"
        } else if !self.shared.heads.are_known() {
            "no_database"
        } else if head.is_some_and(as_known) {
            "as_known"
        } else {
            return false;
        };
        self.shared.metrics.observed(outcome, observations.len());
        true
    }

    /// Asks, and publishes the answer unless it is known. Queues a second look if the context wants
    /// one.
    async fn ask(
        &self,
        registry: &RegistryClient,
        question: &Question,
        context: AskContext<'_>,
    ) -> AskOutcome {
        let image = &question.image;
        // The time before the request: a push during the request is newer than the answer.
        let asked_at = OffsetDateTime::now_utc();
        let mut span = Span::start("ask", SpanKind::Client, question.task.trace.as_ref());
        span.set("tagtrail.image", image.to_string());
        let found = match self.resolve(registry, image, &context, &mut span).await {
            Ok(found) => found,
            Err(pause) => return AskOutcome::Again(pause),
        };
        FailPoint::ResolverAnswered.pass();
        let digest = found.as_ref().map(|found| found.digest.clone());
        if context.known == Some(&digest) {
            return AskOutcome::Done;
        }
        let occasion = Occasion {
            origin: Origin::Resolved,
            source: question.push.source.clone(),
            actor: question.push.actor.clone(),
            event_id: question.push.event_id.clone(),
        };
        let at = effective_from(asked_at, context.head_at);
        let push = push_of(image.clone(), found, at, occasion);
        let (bus, trace) = (&self.shared.bus, Some(*span.context()));
        let subject = Subject::of_push(&push, bus.partitions());
        let stored = async {
            publish(bus, &subject, push, trace).await?;
            if context.look_again {
                let (subject, push) = second_look(question, digest);
                publish(bus, &subject, push, trace).await?;
            }
            Ok::<(), PublishError>(())
        };
        match stored.await {
            Ok(()) => AskOutcome::Done,
            Err(error) => {
                tracing::warn!(%image, "the answer about {image} could not be published; asking again: {error}");
                AskOutcome::Again(self.shared.pause(context.attempt))
            }
        }
    }

    /// Asks the registry for the digest of an image. `Ok(None)`: the tag does not exist. `Err`: the
    /// pause before the next attempt, of another instance if a stop is requested.
    async fn resolve(
        &self,
        registry: &RegistryClient,
        image: &Image,
        context: &AskContext<'_>,
        span: &mut Span,
    ) -> Result<Option<Descriptor>, Duration> {
        let started = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = registry.resolve(&image.repository, &image.tag) => answer,
            () = self.stopped() => return Err(Duration::ZERO),
        };
        let seconds = started.elapsed().as_secs_f64();
        let (name, metrics) = (&image.registry, &self.shared.metrics);
        metrics.asked(name.as_ref(), &answer, seconds);
        if let Err(error) = &answer {
            span.fail(error);
        }
        let attempt = context.attempt;
        let pause = self.shared.pause(attempt);
        match answer {
            Ok(None) if attempt < context.lookups => {
                tracing::info!(%image, delivery.attempt = attempt, "the registry has no {image} (yet)");
                Err(context.until_lookup.unwrap_or(pause))
            }
            Ok(found) => Ok(found),
            Err(AskError::Busy { after }) => {
                let pause = after.unwrap_or_default().max(pause);
                tracing::warn!(%image, "{name} asks for a pause; retrying {image} in {pause:.0?}");
                Err(pause)
            }
            Err(AskError::Resting { rest }) => {
                // A random share more, so that not all questions come at once.
                let pause = rest.mul_f64(1.0 + rand::random::<f64>() / 4.0);
                tracing::debug!(%image, "requests to {name} are paused; retrying {image} in {pause:.0?}");
                Err(pause)
            }
            Err(error @ (AskError::Failed(_) | AskError::Refused(_))) => {
                tracing::warn!(%image, registry = %name, delivery.attempt = attempt, "asking {name} for the digest of {image} failed; retrying in {pause:.0?}: {error}");
                Err(pause)
            }
        }
    }

    /// Waits for a stop request, and then for [`LAST_ANSWERS`].
    async fn stopped(&self) {
        self.shared.shutdown.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    }

    /// Publishes a message that can't be answered to QUARANTINE, with the reason. `tagtrail
    /// quarantine replay` asks the question again.
    pub(super) async fn quarantine(&self, invalid: InvalidMessage) {
        let InvalidMessage {
            task,
            source,
            reason,
        } = invalid;
        let source = source.and_then(|source| source.parse::<Name>().ok());
        let stored = async {
            let source = match source {
                Some(source) => source,
                None => "resolver"
                    .parse()
                    .map_err(|_| PublishError::Unacknowledged("a name".to_owned()))?,
            };
            tracing::error!(%source, "quarantined a question: {reason}");
            let kept = Quarantined::new(
                source.as_ref(),
                Quarantined::PUSH,
                reason,
                OffsetDateTime::now_utc(),
                None,
                task.payload(),
            );
            // The id keeps a redelivered question from a second entry.
            let id = Digest::sha256_of(task.payload()).to_string();
            let subject = Subject::Quarantine { source };
            let message = Message::of(&subject, &kept)?
                .with_id(&id)
                .with_trace(task.trace);
            self.shared.bus.publish(message).await
        };
        match stored.await {
            Ok(_) => task.done().await,
            Err(error) => {
                let pause = self.shared.pause(task.attempt);
                tracing::warn!("a question could not be quarantined: {error}");
                task.again(pause).await;
            }
        }
    }
}

fn not_configured(question: Question) -> InvalidMessage {
    let registry = &question.image.registry;
    InvalidMessage {
        reason: format!(
            "the event of {} names no digest, and {registry} is not configured: add [[registry]] name = \"{registry}\" to tagtrail.toml, then replay this entry",
            question.image
        ),
        source: Some(question.push.source),
        task: question.task,
    }
}

/// Builds the second look of a question: a question with the answer so far.
fn second_look(question: &Question, answer: Option<Digest>) -> (Subject, Push) {
    let Image {
        registry,
        repository,
        tag,
    } = question.image.clone();
    let id = format!("{}{}", Push::SECOND, question.push.event_id);
    let push = Push {
        digest: answer,
        event_id: clean_text(&id, 256),
        ..question.push.clone()
    };
    let subject = Subject::Unresolved {
        registry,
        repository,
        tag,
    };
    (subject, push)
}
