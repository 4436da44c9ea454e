//! Records the triggers that objects ask for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use sqlx::{Connection as _, PgConnection};
use tagtrail_config::{ConfigError, Door, hash};
use tagtrail_kubernetes::discovery::{Wish, trigger_name};
use tagtrail_postgres::within;
use tagtrail_proto::clean_text;
use time::OffsetDateTime;

use super::follow::{Asking, Report, State};
use super::{Known, full, spec};
use crate::error::Error;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::discovered::{self as store, Asked, Key, Row};
use crate::target;

/// Most bytes of a mistake.
pub(super) const PROBLEM: usize = 2000;
/// Most remarks about an object.
const WARNINGS: usize = 20;
/// Most objects beyond `most` that are counted.
const COUNTED: usize = 10_000;
/// Most objects that a text names.
const NAMED: usize = 5;

/// Records the triggers of objects, in one session that holds the lock.
pub(super) struct Writer {
    shared: Shared,
    db: PgConnection,
    known: Arc<Known>,
    /// The objects that ask for more triggers than their cluster may have.
    left_out: BTreeSet<Key>,
}

/// A text about an object, for its events.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) text: String,
}

/// An object whose annotations are to be written back, as a person has released its trigger.
#[derive(Debug, Clone)]
pub(super) struct Released {
    pub(super) key: Key,
    pub(super) row: Row,
}

impl Writer {
    pub(super) fn new(shared: Shared, db: PgConnection, known: Arc<Known>) -> Writer {
        Writer {
            shared,
            db,
            known,
            left_out: BTreeSet::new(),
        }
    }

    pub(super) fn db(&mut self) -> &mut PgConnection {
        &mut self.db
    }

    /// Returns the objects that ask for more triggers than their cluster may have.
    pub(super) fn left_out(&self) -> &BTreeSet<Key> {
        &self.left_out
    }

    /// Records the state of an object. Returns the text for a person if the cluster has too many
    /// triggers.
    pub(super) async fn apply(&mut self, report: Report) -> Result<Option<Told>, Error> {
        let Report { key, state } = report;
        let before = self.known.locked().get(&key).cloned();
        self.left_out.remove(&key);
        match (state, before) {
            (State::Gone, Some(before)) => self.delete(&key, &before).await?,
            (State::Plain, Some(before)) if before.gone_at.is_none() => {
                self.vanished(&key, before).await?;
            }
            (State::Gone | State::Plain, _) => {}
            (State::Asks(asking), before) => return self.asked(key, *asking, before).await,
        }
        Ok(None)
    }

    /// Reads what an object asks for. Returns the text for a person if the cluster has too many.
    async fn asked(
        &mut self,
        key: Key,
        asking: Asking,
        before: Option<Row>,
    ) -> Result<Option<Told>, Error> {
        let Asking {
            uid,
            seen,
            by,
            wish,
            annotations,
        } = asking;
        let settings = Arc::clone(&self.shared.settings.borrow());
        if before.is_none()
            && let Some(text) = self.too_many(&settings, &key)
        {
            if self.left_out.len() < COUNTED {
                self.left_out.insert(key.clone());
            }
            return Ok(Some(Told { key, uid, text }));
        }
        let place = full(&key);
        let (now, problem) = match &wish {
            Ok(wish) => (Some(spec::recorded(wish)), None),
            Err(mistake) => (None, Some(format!("{place}: {mistake}"))),
        };
        let earlier = before.as_ref().and_then(|before| before.wish.clone());
        let group = now.as_ref().or(earlier.as_ref()).and_then(group_of);
        let refusal = spec::refusal(&key, &self.known.locked());
        let row = Row {
            uid,
            seen,
            by: by.to_owned(),
            trigger: self.name(&settings, &key, before.as_ref(), group.as_deref()),
            wish: now.or_else(|| earlier.clone()),
            problem,
            refused: refusal.map(|refusal| refusal.text),
            warnings: warnings(&wish),
            annotations,
            gone_at: None,
            held: false,
        };
        self.asks(&settings, key, row, (before, earlier)).await?;
        Ok(None)
    }

    /// Records an object that asks for a trigger.
    async fn asks(
        &mut self,
        settings: &Settings,
        key: Key,
        mut row: Row,
        (before, earlier): (Option<Row>, Option<Value>),
    ) -> Result<(), Error> {
        let mut rows = self.rows(&row.trigger, &key);
        rows.push((key.clone(), row.clone()));
        let mut settled = composed(settings, &row.trigger, &rows);
        if let Err(problem) = settled {
            // The annotations that could be used before stay in force.
            row.problem = row.problem.or(Some(problem));
            row.wish = earlier;
            rows.pop();
            rows.push((key.clone(), row.clone()));
            settled = composed(settings, &row.trigger, &rows);
        }
        row.problem = row.problem.map(|text| clean_text(&text, PROBLEM));
        let objects = objects(&rows);
        let none_counts = settled == Ok(None);
        let spec = settled.unwrap_or_default();
        let paused = is_paused(&rows);
        let old = before.map(|before| before.trigger);
        let old = old.filter(|old| *old != row.trigger);
        let rest = old.as_ref().map(|old| self.rows(old, &key));
        let recording = async {
            let mut tx = self.db.begin().await?;
            let asked = Asked {
                name: &row.trigger,
                spec: spec.as_ref().map(|spec| (spec, hash(spec))),
                objects: &objects,
            };
            if !store::ask(&mut tx, &asked).await? {
                let name = &row.trigger;
                let problem = format!(
                    "{objects}: a file or the API has a trigger with the name {name}, which this object would have; give one of them another name"
                );
                row.problem = Some(clean_text(&problem, PROBLEM));
            }
            if none_counts {
                store::remove(&mut tx, &row.trigger).await?;
            }
            store::pause(&mut tx, &row.trigger, paused).await?;
            store::write(&mut tx, &key, &row).await?;
            if let (Some(old), Some(rest)) = (&old, &rest) {
                recompose(&mut tx, settings, old, rest).await?;
            }
            tx.commit().await
        };
        within(self.shared.session_timeout, recording).await?;
        let (trigger, place) = (&row.trigger, full(&key));
        match row.objection() {
            Some(problem) => tracing::warn!(trigger, "the annotations of {problem}"),
            None => tracing::info!(trigger, "{place} is trigger {trigger} by its annotations"),
        }
        self.known.locked().insert(key, row);
        Ok(())
    }

    /// Refuses the annotations of objects that an `ImageTrigger` has begun to name, and lets those
    /// count again that none names any more. The trigger that changes the object from now on sends
    /// its images again.
    pub(super) async fn refuse(&mut self) -> Result<(), Error> {
        let changed: Vec<(Key, Row, String)> = {
            let known = self.known.locked();
            let changed = known.iter().filter_map(|(key, row)| {
                let (refused, by) = match spec::refusal(key, &known) {
                    Some(refusal) => (Some(refusal.text), refusal.by),
                    None => (None, row.trigger.clone()),
                };
                (refused != row.refused).then(|| {
                    let row = row.clone();
                    (key.clone(), Row { refused, ..row }, by)
                })
            });
            changed.collect()
        };
        for (key, mut row, by) in changed {
            let settings = Arc::clone(&self.shared.settings.borrow());
            let mut rows = self.rows(&row.trigger, &key);
            rows.push((key.clone(), row.clone()));
            // While they had no effect, nobody has looked at their settings.
            if let Err(problem) = composed(&settings, &row.trigger, &rows) {
                row.problem.get_or_insert(clean_text(&problem, PROBLEM));
            }
            let recording = async {
                let mut tx = self.db.begin().await?;
                store::write(&mut tx, &key, &row).await?;
                recompose(&mut tx, &settings, &row.trigger, &rows).await?;
                store::send_again(&mut tx, &by).await?;
                tx.commit().await
            };
            within(self.shared.session_timeout, recording).await?;
            let (trigger, place) = (&row.trigger, full(&key));
            match &row.refused {
                Some(why) => tracing::warn!(trigger, "trigger {trigger} is refused: {why}"),
                None => tracing::info!(trigger, "the annotations of {place} count again"),
            }
            self.known.locked().insert(key, row);
        }
        Ok(())
    }

    /// Records that an object has no annotations any more. An object whose annotations could never
    /// be read is forgotten.
    async fn vanished(&mut self, key: &Key, mut row: Row) -> Result<(), Error> {
        if row.wish.is_none() {
            return self.delete(key, &row).await;
        }
        row.gone_at = Some(OffsetDateTime::now_utc());
        row.problem = None;
        row.seen = "none".to_owned();
        let (trigger, place) = (&row.trigger, full(key));
        let seconds = self.shared.outlive.0.as_secs();
        tracing::warn!(
            trigger,
            "{place} has lost its annotations: trigger {trigger} is removed after {seconds} s, unless a hold stops it"
        );
        self.write(key, row).await
    }

    async fn write(&mut self, key: &Key, row: Row) -> Result<(), Error> {
        let limit = self.shared.session_timeout;
        within(limit, store::write(&mut self.db, key, &row)).await?;
        self.known.locked().insert(key.clone(), row);
        Ok(())
    }

    /// Forgets an object, and removes its trigger unless other objects ask for it.
    async fn delete(&mut self, key: &Key, row: &Row) -> Result<(), Error> {
        let settings = Arc::clone(&self.shared.settings.borrow());
        let rest = self.rows(&row.trigger, key);
        let recording = async {
            let mut tx = self.db.begin().await?;
            store::delete(&mut tx, key).await?;
            recompose(&mut tx, &settings, &row.trigger, &rest).await?;
            tx.commit().await
        };
        within(self.shared.session_timeout, recording).await?;
        let (trigger, place) = (&row.trigger, full(key));
        tracing::info!(trigger, "{place} is no trigger any more");
        let removed = self.known.locked().remove(key);
        let images = removed.and_then(|row| row.wish?["images"].as_object().cloned());
        if let Some(images) = images {
            self.known.former().insert(key.clone(), images);
        }
        Ok(())
    }

    /// Returns the other objects of a trigger.
    fn rows(&self, trigger: &str, without: &Key) -> Vec<(Key, Row)> {
        let known = self.known.locked();
        let of_trigger = known
            .iter()
            .filter(|(key, row)| row.trigger == trigger && *key != without);
        of_trigger
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect()
    }

    fn too_many(&self, settings: &Settings, key: &Key) -> Option<String> {
        let most = settings.discovering.get(&key.cluster)?.most;
        let known = self.known.locked();
        let count = known.keys().filter(|one| one.cluster == key.cluster);
        (count.count() >= most).then(|| {
            let cluster = &key.cluster;
            format!(
                "the annotations have no effect: cluster {cluster} has {most} annotated objects already; raise `most` in its [[cluster]], or remove annotations"
            )
        })
    }

    /// Returns the name of the trigger of an object. An object keeps the name that it has.
    fn name(
        &self,
        settings: &Settings,
        key: &Key,
        before: Option<&Row>,
        group: Option<&str>,
    ) -> String {
        let known = self.known.locked();
        let same_place =
            |other: &Key| (&other.cluster, &other.namespace) == (&key.cluster, &key.namespace);
        let group_of_row = |row: &Row| row.wish.as_ref().and_then(group_of);
        let is_of_group = |other: &Key, row: &Row| {
            group.is_some() && same_place(other) && group_of_row(row).as_deref() == group
        };
        if let Some(before) = before.filter(|row| group_of_row(row).as_deref() == group) {
            return before.trigger.clone();
        }
        if let Some((_, row)) = known.iter().find(|(other, row)| is_of_group(other, row)) {
            return row.trigger.clone();
        }
        let is_taken = |name: &str| {
            let by_object = known.values().any(|row| row.trigger == name);
            let spec = settings.triggers.get(name);
            by_object
                || spec.is_some_and(|spec| spec.spec.door != Door::Kubernetes)
                || settings.problems.contains_key(name) && !settings.discovered.contains(name)
        };
        let (kind, name) = match group {
            Some(group) => ("group", group),
            None => (key.object.kind.as_str(), key.object.name.as_str()),
        };
        trigger_name((&key.cluster, &key.namespace), (kind, name), is_taken)
    }

    /// Lets go of the objects that the settings no longer discover.
    pub(super) async fn leave(&mut self, settings: &Settings) -> Result<(), Error> {
        let followed = |key: &Key| {
            let entry = settings.discovering.get(&key.cluster);
            entry.is_some_and(|entry| {
                let namespaces = entry.namespaces.as_ref();
                namespaces.is_none_or(|names| names.contains(&key.namespace))
            })
        };
        self.left_out.retain(followed);
        let left = |(key, row): &(&Key, &Row)| {
            let is_broken = settings.cluster_problems.contains_key(&key.cluster);
            !followed(key) && !is_broken && row.gone_at.is_none()
        };
        let left: Vec<(Key, Row)> = {
            let known = self.known.locked();
            let left = known.iter().filter(left);
            left.map(|(key, row)| (key.clone(), row.clone())).collect()
        };
        for (key, row) in left {
            self.vanished(&key, row).await?;
        }
        Ok(())
    }

    /// Removes triggers whose objects have been without annotations for long, unless a hold stops
    /// them. Returns the objects whose triggers a person has released.
    pub(super) async fn outlived(&mut self) -> Result<Vec<Released>, Error> {
        let gone: Vec<(Key, Row)> = {
            let known = self.known.locked();
            let gone = known.iter().filter(|(_, row)| row.gone_at.is_some());
            gone.map(|(key, row)| (key.clone(), row.clone())).collect()
        };
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let triggers: Vec<&str> = gone.iter().map(|(_, row)| row.trigger.as_str()).collect();
        let limit = self.shared.session_timeout;
        let held = within(limit, store::held(&mut self.db, &triggers)).await?;
        let now = OffsetDateTime::now_utc();
        let mut released = Vec::new();
        for (key, mut row) in gone {
            let is_held = held.contains(&row.trigger);
            let long = row
                .gone_at
                .is_some_and(|at| now - at >= self.shared.outlive.0);
            match (is_held, row.held) {
                (true, true) => {}
                (true, false) => {
                    row.held = true;
                    self.write(&key, row).await?;
                }
                (false, true) => released.push(Released { key, row }),
                (false, false) if long => self.delete(&key, &row).await?,
                (false, false) => {}
            }
        }
        Ok(released)
    }

    /// Takes note that the annotations of an object were written back, or named to a person. If
    /// the object still has none after a while, its trigger is removed.
    pub(super) async fn written_back(&mut self, key: Key) -> Result<(), Error> {
        let row = self.known.locked().get(&key).cloned();
        match row.filter(|row| row.held) {
            Some(mut row) => {
                row.held = false;
                row.gone_at = row.gone_at.map(|_| OffsetDateTime::now_utc());
                self.write(&key, row).await
            }
            None => Ok(()),
        }
    }
}

/// Returns the remarks about an object, as they can be stored.
fn warnings(wish: &Result<Wish, String>) -> Vec<String> {
    let all = wish.iter().flat_map(|wish| &wish.warnings);
    let some = all.take(WARNINGS);
    some.map(|text| clean_text(text, PROBLEM)).collect()
}

fn group_of(wish: &Value) -> Option<String> {
    wish["group"].as_str().map(str::to_owned)
}

fn objects(rows: &[(Key, Row)]) -> String {
    let names: Vec<String> = rows.iter().take(NAMED).map(|(key, _)| full(key)).collect();
    match rows.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn is_paused(rows: &[(Key, Row)]) -> bool {
    let rows: Vec<(&Key, &Row)> = rows.iter().map(|(key, row)| (key, row)).collect();
    spec::is_paused(&rows)
}

/// Returns the settings of a trigger, if they can be used. `None`: no object has annotations that
/// count.
fn composed(
    settings: &Settings,
    trigger: &str,
    rows: &[(Key, Row)],
) -> Result<Option<Value>, String> {
    let place = objects(rows);
    let refs: Vec<(&Key, &Row)> = rows.iter().map(|(key, row)| (key, row)).collect();
    let spec = spec::settings(trigger, &refs).map_err(|why| format!("{place}: {why}"))?;
    let Some(spec) = spec else { return Ok(None) };
    let reader = &settings.reader;
    let wrong = |error: ConfigError| format!("{place}: {}", spec::mistake(&refs, error.message()));
    let read = reader.read_trigger(Door::Kubernetes, Path::new(&place), &spec);
    let read = read.map_err(wrong)?;
    target::configure(reader, &settings.clusters, &read).map_err(wrong)?;
    Ok(Some(spec))
}

/// Records the trigger of the objects that are left. Without any that counts, the trigger is
/// removed.
async fn recompose(
    db: &mut PgConnection,
    settings: &Settings,
    trigger: &str,
    rows: &[(Key, Row)],
) -> Result<(), sqlx::Error> {
    let spec = match composed(settings, trigger, rows) {
        Ok(Some(spec)) => spec,
        Ok(None) => return store::remove(db, trigger).await,
        // A mistake leaves the generation before in force.
        Err(_) => return Ok(()),
    };
    let asked = Asked {
        name: trigger,
        spec: Some((&spec, hash(&spec))),
        objects: &objects(rows),
    };
    store::ask(db, &asked).await?;
    store::pause(db, trigger, is_paused(rows)).await
}

/// Returns annotations as pairs of texts.
pub(super) fn pairs(annotations: &Map<String, Value>) -> Vec<(&str, String)> {
    let pairs = annotations.iter().filter_map(|(key, text)| {
        let text = text.as_str()?.to_owned();
        Some((key.as_str(), text))
    });
    pairs.collect()
}
