//! Asks targets which images they run, for triggers that adopt them at first sight.
//!
//! The planner never waits for a target: a task for each trigger asks, again and again until the
//! target answers, and the planner decides when the answer is there. So a target that is down
//! delays its own trigger alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_policy::choice::Chosen;
use tagtrail_policy::selection::{Key, Times};
use tagtrail_proto::{Image, Pinned, Reason, ReasonCode, RolloutImage};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::candidates::{Candidates, ImageName};
use super::choice::Choices;
use crate::act::Slots;
use crate::store::adoption::{Had, Runs, tags};
use crate::store::selections::NewSelection;
use crate::store::states::TriggerState;
use crate::target::{Running, Target};
use tagtrail_policy::decide::{Reported, Situation};

/// The longest time of one question.
const QUESTION: Duration = Duration::from_secs(60);
/// The pause after the first question without an answer; each further one doubles the pause.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause before the next look for a free slot.
const SLOT: Duration = Duration::from_secs(1);
/// The time for which an answer counts.
const LASTS: Duration = Duration::from_secs(10);
/// Answers that may wait for the planner.
const QUEUE: usize = 64;
/// Most bytes of a reason.
const REASON: usize = 500;

/// The targets that are asked, by the names of their triggers.
pub(super) struct Adoptions {
    asked: BTreeMap<String, Asked>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(String, Running)>,
    answers: mpsc::Receiver<(String, Running)>,
}

struct Asked {
    task: AbortHandle,
    /// The last answer, and its time.
    answer: Option<(Running, Instant)>,
}

/// The images of a target, as far as they are known.
#[derive(Debug)]
pub(super) enum Report {
    /// The target has not answered yet; the reason is for people.
    Unknown(Reason),
    Set(Adopted),
    /// The target runs no set that can be adopted, for this reason.
    NoSet(String),
}

/// A set that a target runs.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    images: BTreeMap<String, RolloutImage>,
    /// The tags that policies count as selected from now on.
    pub(super) selections: Vec<(ImageName, NewSelection)>,
}

impl Report {
    /// Returns the report for the decision.
    pub(super) fn reported(&self) -> Reported<'_> {
        match self {
            Report::Unknown(_) => Reported::Unknown,
            Report::Set(adopted) => Reported::Set(&adopted.images),
            Report::NoSet(why) => Reported::NoSet(why),
        }
    }
}

impl Adoptions {
    pub(super) fn new() -> Adoptions {
        let (sender, answers) = mpsc::channel(QUEUE);
        Adoptions {
            asked: BTreeMap::new(),
            tasks: JoinSet::new(),
            sender,
            answers,
        }
    }

    /// Waits for the next answer of a target. Returns the name of its trigger.
    pub(super) async fn answered(&mut self) -> Option<String> {
        let (trigger, answer) = self.answers.recv().await?;
        if let Running::NoSet(why) = &answer {
            tracing::warn!(
                trigger,
                "trigger {trigger} adopts no images, and rolls the present ones out: {why}"
            );
        }
        while self.tasks.try_join_next().is_some() {}
        let asked = self.asked.get_mut(&trigger)?;
        asked.answer = Some((answer, Instant::now()));
        Some(trigger)
    }

    /// Ends the question about a trigger, if there is one.
    pub(super) fn forget(&mut self, trigger: &str) {
        if let Some(asked) = self.asked.remove(trigger) {
            asked.task.abort();
        }
    }

    /// Returns the images of the target of a trigger if they are known, and asks the target
    /// otherwise.
    pub(super) fn running(
        &mut self,
        trigger: &str,
        target: Option<&Arc<dyn Target>>,
        slots: &Arc<Slots>,
    ) -> Running {
        let Some(target) = target else {
            return Running::NoAnswer("its settings can't be used".to_owned());
        };
        let old = |asked: &Asked| {
            let images = matches!(asked.answer, Some((Running::Images(_), _)));
            let at = asked.answer.as_ref().map(|(_, at)| *at);
            images && at.is_some_and(|at| at.elapsed() > LASTS)
        };
        if self.asked.get(trigger).is_some_and(old) {
            self.forget(trigger);
        }
        if let Some(asked) = self.asked.get(trigger) {
            let answer = asked.answer.as_ref().map(|(answer, _)| answer.clone());
            return answer.unwrap_or_else(not_yet);
        }
        let (target, slots) = (Arc::clone(target), Arc::clone(slots));
        let asking = ask(trigger.to_owned(), target, slots, self.sender.clone());
        let task = self.tasks.spawn(asking);
        let asked = Asked { task, answer: None };
        self.asked.insert(trigger.to_owned(), asked);
        not_yet()
    }
}

fn not_yet() -> Running {
    Running::NoAnswer("it is asked now".to_owned())
}

/// Asks until the target answers.
async fn ask(
    trigger: String,
    target: Arc<dyn Target>,
    slots: Arc<Slots>,
    answers: mpsc::Sender<(String, Running)>,
) {
    let mut pause = PAUSE;
    loop {
        let slot = loop {
            match slots.take(target.place()) {
                Some(slot) => break slot,
                None => tokio::time::sleep(SLOT).await,
            }
        };
        let question = tokio::time::timeout(QUESTION, target.current());
        let answer = question.await.unwrap_or_else(|_| {
            let seconds = QUESTION.as_secs();
            Running::NoAnswer(format!("no answer within {seconds} s"))
        });
        drop(slot);
        let answered = !matches!(answer, Running::NoAnswer(_));
        if answers.send((trigger.clone(), answer)).await.is_err() || answered {
            return;
        }
        tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns the report about the images that a target runs: as images of a rollout, if each image of
/// the trigger runs, and if the images with policies are tags in history.
pub(super) async fn report(
    db: &mut PgConnection,
    running: Running,
    state: &TriggerState,
    situation: &Situation<'_>,
    (candidates, choices): (&Candidates, &Choices),
) -> Result<Report, sqlx::Error> {
    let running = match running {
        Running::Images(running) => running,
        Running::NoSet(why) => {
            return Ok(Report::NoSet(tagtrail_proto::clean_text(&why, REASON)));
        }
        Running::NoAnswer(why) => {
            let why = format!("the target has not told yet which images it runs: {why}");
            let why = tagtrail_proto::clean_text(&why, REASON);
            return Ok(Report::Unknown(Reason::new(ReasonCode::Adopting, why)));
        }
    };
    let mut runs = Vec::new();
    for (name, watched) in situation.images {
        let Some(pinned) = running.get(name) else {
            if situation.partial {
                continue;
            }
            let why = format!("no place of the target runs the image {name}");
            return Ok(Report::NoSet(why));
        };
        let tag = watched.tag().map(|image| &image.tag);
        runs.push(Runs { name, tag, pinned });
    }
    if runs.is_empty() {
        let why = "no place of the target runs an image of the trigger".to_owned();
        return Ok(Report::NoSet(why));
    }
    let had = tags(db, &runs).await?;
    let mut adopted = Adopted::default();
    for one in runs {
        let had = had.iter().filter(|had| had.name == one.name);
        let of = (situation, candidates, choices);
        if let Err(why) = add(&mut adopted, state, &one, had, of) {
            return Ok(Report::NoSet(why));
        }
    }
    Ok(Report::Set(adopted))
}

/// Adds an image of a target to the set. An error says why it can't be adopted.
fn add<'h>(
    adopted: &mut Adopted,
    state: &TriggerState,
    one: &Runs<'_>,
    mut had: impl Iterator<Item = &'h Had>,
    (situation, candidates, choices): (&Situation<'_>, &Candidates, &Choices),
) -> Result<(), String> {
    let name = one.name.to_owned();
    let image = |tag| Image {
        registry: one.pinned.registry.clone(),
        repository: one.pinned.repository.clone(),
        tag,
    };
    let selected = situation.selected.get(one.name);
    let same = selected.filter(|one_now| one_now.pinned().as_ref() == Some(one.pinned));
    if let Some(selected) = same {
        let runs = runs(selected.image.clone(), selected.head.revision, one.pinned);
        adopted.images.insert(name, runs);
        return Ok(());
    }
    if let Some(tag) = one.tag {
        // The image may never have had the digest: it was deployed from elsewhere, or long ago.
        let revision = had.next().map_or(0, |had| had.revision);
        let runs = runs(image(tag.clone()), revision, one.pinned);
        adopted.images.insert(name, runs);
        return Ok(());
    }
    let mut policies = candidates.of(&state.name);
    let policy = policies.find(|(of, _)| *of == one.name);
    let policy = policy.map(|(_, policy)| policy);
    let rule = policy.map(|policy| policy.watched.policy.rule());
    let key_of = |had: &Had| -> Option<Key> {
        let times = Times {
            pushed: had.effective_at,
            created: None,
        };
        rule?.key_beyond_filters(&had.tag, times)
    };
    let accepted = |had: &Had| {
        let times = Times {
            pushed: had.effective_at,
            created: None,
        };
        rule.is_some_and(|rule| rule.key(&had.tag, times).is_ok())
    };
    let ranked = had.map(|had| ((accepted(had), key_of(had), had.effective_at), had));
    let best = ranked.max_by(|(one, _), (other, _)| one.cmp(other));
    let Some(((_, key, _), had)) = best else {
        return Err(format!(
            "the target runs {}, and no tag of the repository ever had this digest, as far as history knows",
            one.pinned
        ));
    };
    let runs = runs(image(had.tag.clone()), had.revision, one.pinned);
    adopted.images.insert(name.clone(), runs);
    // The policy never goes below the version that runs.
    if let (Some(policy), Some(key)) = (policy, key)
        && choices.get(&state.name, one.name).is_some()
    {
        let selection = Chosen {
            registry: one.pinned.registry.clone(),
            repository: one.pinned.repository.clone(),
            tag_id: had.tag_id,
            tag: had.tag.clone(),
            key,
            digest: one.pinned.digest.clone(),
            revision: had.revision,
            rule: policy.fingerprint.clone(),
            selected_at: situation.now,
        };
        let new = NewSelection {
            trigger: state.id,
            name: name.clone(),
            policy: policy.policy,
            selection,
        };
        adopted.selections.push(((state.name.clone(), name), new));
    }
    Ok(())
}

fn runs(image: Image, revision: u64, pinned: &Pinned) -> RolloutImage {
    RolloutImage {
        image,
        revision,
        digest: pinned.digest.clone(),
        pinned: pinned.clone(),
        actor: None,
        previous: None,
    }
}
