//! Looks whether somebody else has changed the values of a rollout that has succeeded, as by
//! `git revert`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::contract::Order;
use super::GitTarget;
use super::clone::Clone;
use super::clones::{Clones, name_of};
use super::edits::{Edited, Wanted};
use super::place::Place;
use super::program::Problem;
use super::turn::values;

/// The time for which the answer of a server stands for all targets of the branch: a commit, or no
/// answer.
const ANSWER: Duration = Duration::from_secs(2);
const NO_ANSWER: Duration = Duration::from_secs(50);
/// The longest time of one exchange.
const LONGEST: Duration = Duration::from_secs(10);

/// The last answers of servers about branches.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<BTreeMap<Place, (Instant, Option<String>)>>);

impl Heads {
    fn get(&self, place: &Place) -> Option<Option<String>> {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, head) = heads.get(place)?;
        let lasts = if head.is_some() { ANSWER } else { NO_ANSWER };
        (at.elapsed() < lasts).then(|| head.clone())
    }

    fn set(&self, place: &Place, head: Option<String>) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.retain(|_, (at, _)| at.elapsed() < NO_ANSWER);
        heads.insert(place.clone(), (Instant::now(), head));
    }
}

/// The last look of a target at its branch.
#[derive(Debug, Default)]
pub(super) struct LastLook(Mutex<Option<Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    /// The id of the rollout.
    rollout: String,
    /// The commit of the branch.
    head: String,
    /// The files that had the images.
    had: BTreeSet<String>,
}

impl LastLook {
    /// Returns the last look at the values of a rollout.
    fn of(&self, rollout: &str) -> Option<Seen> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|seen| seen.rollout == rollout)
    }

    fn set(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

impl GitTarget {
    /// Returns a change of the values by somebody else: a file had the images and has others now,
    /// or no file has them. A new file is no change, and neither is a server without an answer.
    pub(super) async fn changed_by_others(&self, order: &Order) -> Option<String> {
        let clones = order.clones.as_ref()?;
        match self.look(clones, order).await {
            Ok(found) => found,
            Err(problem) => {
                let access = self.access.get();
                order.said.hide(access.hidden());
                let text = order.said.shown(problem.to_string().as_bytes());
                tracing::debug!("no look at {}: {text}", self.settings.branch);
                None
            }
        }
    }

    async fn look(&self, clones: &Clones, order: &Order) -> Result<Option<String>, Problem> {
        let (settings, access) = (&self.settings, self.access.get());
        let place = &settings.branch;
        let turn = clones.turn(place).await.map_err(Problem::Io)?;
        let limit = settings.timeout.min(LONGEST);
        let account = (&*access, &settings.author);
        let clone = Clone::open(&turn.home, &name_of(place), &place.url, account, limit)?;
        let head = match clones.heads.get(place) {
            Some(head) => head,
            None => {
                let head = clone.head(&place.branch).await;
                clones
                    .heads
                    .set(place, head.as_ref().ok().cloned().flatten());
                head?
            }
        };
        let last = self.last.of(&order.rollout.id);
        let Some(head) = head.filter(|head| last.as_ref().is_none_or(|last| last.head != *head))
        else {
            return Ok(None);
        };
        let commit = match clone.fetch(&place.branch).await {
            Ok(commit) => commit,
            Err(problem) => {
                clones.heads.set(place, None);
                return Err(problem);
            }
        };
        let wanted = Wanted {
            edits: &settings.edits,
            path: &settings.path,
            images: &order.rollout.images,
            markers: &settings.markers,
            names: &self.names,
        };
        // A place that is gone is for the next rollout to name.
        let Ok(edited) = values(&clone, &commit, settings, &wanted).await? else {
            return Ok(None);
        };
        let mut before = last.map(|last| last.had).unwrap_or_default();
        before.extend(order.had.iter().cloned());
        let Some(lost) = lost(&edited, &before, |_| true) else {
            let had = had(&edited);
            self.last.set(Seen {
                rollout: order.rollout.id.clone(),
                head,
                had,
            });
            return Ok(None);
        };
        let change = edited.changes.iter().find(|change| is_of(change, lost));
        let text = change_text(&clone, place, &commit, change.unwrap_or(lost)).await?;
        Ok(Some(text))
    }
}

/// Returns the files that have the images.
fn had(edited: &Edited) -> BTreeSet<String> {
    let mut had = edited.places.clone();
    had.retain(|path| !edited.files.contains_key(path));
    had
}

/// Returns a file that had the images before and has others now. If no file has the images, any
/// file with other ones counts. A new file, which `before` does not name, is no change.
pub(super) fn lost<'e>(
    edited: &'e Edited,
    before: &BTreeSet<String>,
    is_open: impl Fn(&String) -> bool,
) -> Option<&'e String> {
    let open = || edited.files.keys().filter(|path| is_open(path));
    let lost = open().find(|path| before.contains(*path));
    lost.or_else(|| open().next().filter(|_| had(edited).is_empty()))
}

/// Returns whether a line about a change is about this file.
pub(super) fn is_of(change: &str, path: &str) -> bool {
    let rest = change.strip_prefix(path);
    rest.is_some_and(|rest| rest.starts_with(": "))
}

/// Returns the text about images that somebody else has changed. `wanted`: a value as the last
/// rollout wants it.
pub(super) async fn change_text(
    clone: &Clone,
    place: &Place,
    commit: &str,
    wanted: &str,
) -> Result<String, Problem> {
    let tip = clone.subject(commit).await?;
    let short = commit.get(..10).unwrap_or(commit);
    let text = format!(
        "somebody else has changed the images in {place}, whose last commit is {short} ({tip}); the last rollout wants {wanted}"
    );
    Ok(tagtrail_proto::clean_text(&text, 1000))
}
