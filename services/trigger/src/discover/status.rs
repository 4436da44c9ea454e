//! The status of `ImageTrigger` objects, as `kubectl get imagetriggers` shows it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::PgConnection;
use tagtrail_condition::{Facts, judge};
use tagtrail_kubernetes::Problem;
use tagtrail_postgres::within;
use tagtrail_proto::{RolloutImage, clean_text};
use tokio::task::JoinSet;

use super::{Known, full};
use crate::error::Error;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::discovered::{Key, Row};

/// Kind and group of the objects with a status.
pub(super) const KIND: (&str, &str) = ("imagetrigger", "tagtrail.dev");
/// Most statuses that are on their way.
const AT_ONCE: usize = 20;
/// Most bytes of a text.
const TEXT: usize = 500;
/// Hexadecimal digits of a digest that are shown.
const DIGITS: usize = 12;

/// The statuses that were written.
#[derive(Default)]
pub(super) struct Statuses {
    written: BTreeMap<Key, Value>,
    writing: JoinSet<(Key, Result<(), Problem>)>,
}

impl Statuses {
    /// Writes the statuses that have changed, in the background. One that can't be written comes
    /// again.
    pub(super) async fn write(
        &mut self,
        shared: &Shared,
        settings: &Settings,
        known: &Known,
        db: &mut PgConnection,
    ) -> Result<(), Error> {
        while let Some(done) = self.writing.try_join_next() {
            let Ok((key, Err(problem))) = done else {
                continue;
            };
            self.written.remove(&key);
            let place = full(&key);
            tracing::debug!("the status of {place} can't be written: {problem}");
        }
        let objects: Vec<(Key, Row)> = {
            let known = known.locked();
            let objects = known.iter().filter(|(key, _)| key.object.kind == KIND.0);
            objects
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect()
        };
        self.written
            .retain(|key, _| objects.iter().any(|(one, _)| one == key));
        if objects.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = objects
            .iter()
            .map(|(_, row)| row.trigger.as_str())
            .collect();
        let reading = tagtrail_condition::read(db, Some(&names));
        let facts = within(shared.session_timeout, reading).await?;
        let facts: BTreeMap<&str, &Facts> =
            facts.iter().map(|one| (one.name.as_str(), one)).collect();
        for (key, row) in objects {
            if self.writing.len() >= AT_ONCE {
                break;
            }
            let facts = facts.get(row.trigger.as_str()).copied();
            let status = status(&row, facts, settings.shared.about(&row.trigger));
            let Ok(cluster) = settings.clusters.named(&key.cluster) else {
                continue;
            };
            if self.written.get(&key) == Some(&status) {
                continue;
            }
            self.written.insert(key.clone(), status.clone());
            self.writing.spawn(async move {
                let done = cluster.patch_status(&key.namespace, &key.object, &status);
                let done = done.await;
                (key, done)
            });
        }
        Ok(())
    }
}

/// Returns the status of an object. A missing text is null, so that an earlier one goes. `shared`:
/// the text about images that another trigger changes, too, shown if there is no other reason.
fn status(row: &Row, facts: Option<&Facts>, shared: Option<String>) -> Value {
    let mut status = json!({
        "trigger": row.trigger, "image": null, "deployed": null, "wanted": null, "state": "pending",
        "why": null, "rollout": null,
    });
    if let Some(facts) = facts.filter(|facts| facts.configured) {
        let judged = judge(facts);
        let images: Vec<&str> = facts.images.values().map(String::as_str).collect();
        let current = facts.current.as_ref();
        status["image"] = json!(clean_text(&images.join(", "), TEXT));
        status["deployed"] = json!(current.map(|current| digests(&current.images)));
        status["wanted"] = json!(judged.wanted.as_ref().map(digests));
        status["state"] = json!(judged.condition.to_string());
        let reason = judged.reasons.into_iter().next().map(|reason| reason.why);
        status["why"] = json!(reason.or(shared).map(|why| clean_text(&why, TEXT)));
        status["rollout"] = json!(facts.last.as_ref().map(|last| last.number));
    }
    if let Some(problem) = &row.problem {
        status["state"] = json!("broken");
        status["why"] = json!(clean_text(problem, TEXT));
    }
    status
}

/// Returns the digests of images for people: of one image the digest alone.
fn digests(images: &BTreeMap<String, RolloutImage>) -> String {
    let short = |image: &RolloutImage| {
        let digest = image.digest.to_string();
        let end = digest.find(':').map_or(0, |at| at + 1) + DIGITS;
        digest.get(..end).unwrap_or(&digest).to_owned()
    };
    let all: Vec<String> = match images.len() {
        1 => images.values().map(short).collect(),
        _ => images
            .iter()
            .map(|(name, image)| format!("{name}@{}", short(image)))
            .collect(),
    };
    clean_text(&all.join(", "), TEXT)
}
