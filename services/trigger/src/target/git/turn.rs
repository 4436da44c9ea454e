//! One turn at a branch: all jobs that wait are done, as far as possible in one commit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::Names;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::CauseReason;
use time::OffsetDateTime;

use super::super::contract::{OnForeignChange, Order};
use super::access::Access;
use super::clone::{Clone, Pushed};
use super::clones::{Waiting, lock_of, name_of};
use super::drift::{change_text, is_of, lost};
use super::edits::{Edited, Files, Wanted, edit};
use super::files::Loaded;
use super::locks::Locks;
use super::message::{Part, message};
use super::place::Place;
use super::problem::{Trouble, trouble};
use super::program::Problem;
use super::settings::{Push, Settings};

/// Most pushes of a turn that others overtake.
const RACES: u32 = 5;
/// The pause after the first lost race; each further one doubles the pause.
const PAUSE: Duration = Duration::from_millis(100);

/// An attempt at a branch.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) order: Order,
    pub(super) settings: Arc<Settings>,
    pub(super) access: Arc<Access>,
    pub(super) names: Names,
}

impl Job {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            edits: &self.settings.edits,
            path: &self.settings.path,
            images: &self.order.rollout.images,
            markers: &self.settings.markers,
            names: &self.names,
        }
    }

    /// Returns whether one commit may be of both jobs.
    fn joins(&self, other: &Job) -> bool {
        self.settings.push == Push::Direct
            && other.settings.push == Push::Direct
            && self.settings.author == other.settings.author
            && self.access.is_same(&other.access)
    }
}

/// Does the jobs, one process at a time.
pub(super) async fn make(home: &Path, place: &Place, locks: &Locks, waiting: &mut [Waiting]) {
    let limit = waiting.iter().map(|one| one.job.settings.timeout).max();
    let held = match locks.hold(lock_of(place), limit.unwrap_or_default()).await {
        Ok(Some(held)) => held,
        Ok(None) => {
            let error = format!("another process writes to {place} since too long");
            return fail(waiting, &error);
        }
        Err(error) => {
            let error = format!("the lock of {place} in Postgres can't be taken: {error}");
            return fail(waiting, &error);
        }
    };
    let work = async {
        while let Some(first) = waiting.iter().position(Waiting::is_open) {
            // Jobs of one account go together.
            let leader = waiting[first].job.clone();
            let mut group: Vec<&mut Waiting> = waiting
                .iter_mut()
                .enumerate()
                .filter(|(at, one)| one.is_open() && (*at == first || one.job.joins(&leader)))
                .map(|(_, one)| one)
                .collect();
            together(home, place, &leader, &mut group).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = held.keep() => {}
    }
    held.release().await;
}

fn fail(waiting: &mut [Waiting], error: &str) {
    for one in waiting {
        one.answer(Outcome::Failed {
            error: error.to_owned(),
            after: None,
        });
    }
}

/// Does the jobs of one account. All of them have an outcome afterwards.
async fn together(home: &Path, place: &Place, leader: &Job, group: &mut [&mut Waiting]) {
    let (settings, access) = (&leader.settings, &leader.access);
    let opened = Clone::open(
        home,
        &name_of(place),
        &place.url,
        (access, &settings.author),
        settings.timeout,
    );
    let turn = match opened {
        Ok(clone) => Turn { clone, place },
        Err(problem) => return give_up(group, place, &problem),
    };
    let done = match (settings.push, &mut *group) {
        (Push::Branch, [one]) => turn.propose(one).await,
        _ => turn.all(group).await,
    };
    if let Err(problem) = done {
        give_up(group, place, &problem);
    }
    for one in group.iter_mut().filter(|one| one.is_open()) {
        let error = format!("others pushed to {place} {RACES} times meanwhile");
        one.answer(Outcome::Failed { error, after: None });
    }
}

/// Gives all open jobs the outcome of a problem.
fn give_up(group: &mut [&mut Waiting], place: &Place, problem: &Problem) {
    for one in group.iter_mut().filter(|one| one.is_open()) {
        let said = &one.job.order.said;
        let text = said.shown(format!("{place}: {problem}").as_bytes());
        let outcome = match trouble(problem) {
            Trouble::Final(cure) => Outcome::Refused(format!("{text}; {cure}")),
            Trouble::Server(cure) => Outcome::Failed {
                error: format!("{text}; {cure}"),
                after: None,
            },
            Trouble::Clone => Outcome::Failed {
                error: text,
                after: None,
            },
        };
        one.answer(outcome);
    }
}

/// A turn with the clone of the branch.
pub(super) struct Turn<'a> {
    pub(super) clone: Clone,
    pub(super) place: &'a Place,
}

/// The tries of one push.
#[derive(Default)]
pub(super) struct Tries {
    races: u32,
    renewed: bool,
}

impl Tries {
    /// Pauses after a lost race. Returns whether to try again.
    pub(super) async fn race(&mut self) -> bool {
        self.races += 1;
        if self.races >= RACES {
            return false;
        }
        let pause = PAUSE * 2_u32.pow(self.races - 1);
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        true
    }

    /// Lets a damaged clone be made again, once. Any other problem is returned.
    pub(super) fn problem(&mut self, turn: &Turn<'_>, problem: Problem) -> Result<(), Problem> {
        if self.renewed || trouble(&problem) != Trouble::Clone {
            return Err(problem);
        }
        tracing::info!("the clone of {} is made again: {problem}", turn.place);
        self.renewed = true;
        turn.clone.forget()
    }
}

impl Turn<'_> {
    /// Edits, commits and pushes, again if others pushed meanwhile.
    async fn all(&self, group: &mut [&mut Waiting]) -> Result<(), Problem> {
        let mut tries = Tries::default();
        loop {
            match self.once(group).await {
                Ok(Pushed::Done) => return Ok(()),
                Ok(Pushed::Refused(why)) => return self.refused(group, &why).await,
                Ok(Pushed::Raced) if tries.race().await => {}
                Ok(Pushed::Raced) => return Ok(()),
                Err(problem) => tries.problem(self, problem)?,
            }
        }
    }

    /// A refused commit of several jobs is made again for each of them: the server may refuse the
    /// files of one alone.
    pub(super) async fn refused(
        &self,
        group: &mut [&mut Waiting],
        why: &str,
    ) -> Result<(), Problem> {
        let mut open: Vec<&mut &mut Waiting> =
            group.iter_mut().filter(|one| one.is_open()).collect();
        if let [one] = open.as_mut_slice() {
            let why = one.job.order.said.shown(why.as_bytes());
            one.answer(Outcome::Refused(format!(
                "the server refuses the push to {}: {why}; let Tagtrail's account push to it, or write push = \"branch\"",
                self.place
            )));
            return Ok(());
        }
        for one in open {
            Box::pin(self.all(&mut [&mut **one])).await?;
        }
        Ok(())
    }

    /// Makes one try. `Done`: all jobs have an outcome.
    async fn once(&self, group: &mut [&mut Waiting]) -> Result<Pushed, Problem> {
        let branch = &self.place.branch;
        let base = self.clone.fetch(branch).await?;
        let mut files = Loaded::default();
        let mut edited = Vec::new();
        for one in group.iter_mut().filter(|one| one.is_open()) {
            let loading = files.load(&self.clone, &base, &one.job.settings);
            let found = match loading.await? {
                Ok(()) => edit(&one.job.wanted(), files.contents()),
                Err(why) => Err(why),
            };
            match found {
                Err(why) => one.answer(Outcome::Refused(format!("{}: {why}", self.place))),
                Ok(Edited { files, places, .. }) if files.is_empty() => {
                    let order = &one.job.order;
                    order.said.push(b"the branch had the images already\n");
                    order.places.set(places.into_iter());
                    one.answer(Outcome::Done);
                }
                Ok(found) => match objection(&one.job, files.contents(), &found) {
                    Some((lost, since)) => {
                        let error = self.foreign(&base, &lost).await?;
                        one.answer(Outcome::Foreign {
                            error,
                            since: Some(since),
                        });
                    }
                    None => {
                        one.job.order.places.set(found.places.into_iter());
                        files.change(found.files);
                        edited.push((one, found.changes));
                    }
                },
            }
        }
        // The last of two triggers that write the same value would win, again and again.
        edited.retain_mut(|(one, _)| {
            let holds = edit(&one.job.wanted(), files.contents());
            let holds = holds.is_ok_and(|edited| edited.files.is_empty());
            if !holds {
                one.answer(Outcome::Refused(format!(
                    "{}: another trigger writes the same values; give each value one trigger",
                    self.place
                )));
            }
            holds
        });
        if edited.is_empty() {
            return Ok(Pushed::Done);
        }
        let parts: Vec<Part<'_>> = edited.iter().map(|(one, _)| part(&one.job)).collect();
        let message = message(&parts, None);
        let changed = files.changed();
        let commit = self.clone.commit(&base, &changed, &message).await?;
        drop(parts);
        FailPoint::TriggerCommitted.pass();
        let pushed = self.clone.push(&commit, branch, None).await?;
        if pushed == Pushed::Done {
            for (one, changes) in edited {
                let lines = format!(
                    "{}\ncommit {commit} of branch {branch}\n",
                    changes.join("\n")
                );
                one.job.order.said.push(lines.as_bytes());
                one.answer(Outcome::Done);
            }
        }
        Ok(pushed)
    }
}

impl Turn<'_> {
    /// Returns the text about a file that somebody else has changed.
    async fn foreign(&self, commit: &str, lost: &str) -> Result<String, Problem> {
        change_text(&self.clone, self.place, commit, lost).await
    }
}

/// Returns the change of a file by somebody else that the job would overwrite, and the time since
/// which a person may have decided about it: a person who ordered the rollout, or who released the
/// trigger since then, has decided.
fn objection(job: &Job, files: &Files, found: &Edited) -> Option<(String, OffsetDateTime)> {
    let Order {
        rollout,
        background,
        decided,
        ..
    } = &job.order;
    let settings = &job.settings;
    let holds =
        settings.push == Push::Direct && settings.on_foreign_change == OnForeignChange::Hold;
    if !holds || *decided || rollout.cause.reason != CauseReason::Revision {
        return None;
    }
    let before = background.before.as_ref()?;
    let with = |images| {
        let wanted = Wanted {
            images,
            ..job.wanted()
        };
        edit(&wanted, files).ok()
    };
    let then = with(&before.images)?;
    let places = before.places.iter().cloned().collect();
    // An attempt at a newer rollout may have pushed, and ended before its success was recorded.
    let since: Vec<Edited> = background.since.iter().filter_map(with).collect();
    let ours = |path: &String| since.iter().any(|one| !one.files.contains_key(path));
    let is_open = |path: &String| found.files.contains_key(path) && !ours(path);
    let lost = lost(&then, &places, is_open)?;
    let change = then.changes.iter().find(|change| is_of(change, lost));
    Some((change.unwrap_or(lost).clone(), before.at))
}

/// Returns the part of the message that is of a job.
pub(super) fn part(job: &Job) -> Part<'_> {
    let template = job.settings.message.as_ref();
    // The settings have tried the template; without a text the usual one stands.
    let own = template.and_then(|template| template.render(&job.order.body).ok());
    let own = own.and_then(|own| String::from_utf8(own).ok());
    Part {
        rollout: &job.order.rollout,
        background: &job.order.background,
        own: own.filter(|own| !own.trim().is_empty()),
    }
}

/// Returns the values that the images of a job have in a commit of the branch.
pub(super) async fn values(
    clone: &Clone,
    commit: &str,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Result<Edited, String>, Problem> {
    let mut files = Loaded::default();
    Ok(match files.load(clone, commit, settings).await? {
        Ok(()) => edit(wanted, files.contents()),
        Err(why) => Err(why),
    })
}
