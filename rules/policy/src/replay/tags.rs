//! The tags of the repository of an image with a policy, at one time of a replay.

use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;

use super::Change;
use crate::choice::{Chosen, Facts, PolicyImage, TagRow};
use crate::gates::{Head, ManifestState};
use crate::selection::{Fit, Key, Rule, Times};

/// The candidates that are looked at, as by the planner: first two, which mostly decide, then a
/// hundred, then more.
const DEPTHS: [usize; 5] = [2, 100, 400, 1600, 10_000];

/// A tag that the rule takes, or that is selected.
#[derive(Debug)]
struct Known {
    row: TagRow,
    fit: Fit,
    head: Head,
    /// The place among the candidates, if the tag is one.
    key: Option<Key>,
}

/// An image with a policy, and the tags of its repository.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) image: PolicyImage,
    /// The rule as it applies after the last selection.
    rule: Rule,
    known: HashMap<i64, Known>,
    /// The ids of the candidates.
    ranked: BTreeMap<Key, i64>,
}

/// The effect of a change on an image.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Effect {
    /// The selection may change.
    pub(super) matters: bool,
    /// An image that would have been selected was replaced before it had lasted for `min_age`.
    pub(super) too_short: bool,
    /// The selected tag is gone, and only lower tags are left.
    pub(super) only_lower: bool,
}

impl Tags {
    pub(super) fn new(image: PolicyImage) -> Tags {
        Tags {
            rule: image.watched.policy.rule().clone(),
            image,
            known: HashMap::new(),
            ranked: BTreeMap::new(),
        }
    }

    /// Returns the number of tags that are held in memory.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    fn is_selected(&self, tag: i64) -> bool {
        self.image
            .selection
            .as_ref()
            .is_some_and(|one| one.tag_id == tag)
    }

    /// Gives a tag a new head.
    pub(super) fn apply(&mut self, change: &Change) -> Effect {
        let tag = change.tag_id;
        let before = self.known.remove(&tag);
        if let Some(key) = before.as_ref().and_then(|known| known.key.as_ref()) {
            self.ranked.remove(key);
        }
        let mut effect = Effect {
            too_short: before
                .as_ref()
                .is_some_and(|known| self.is_too_short(known, change)),
            ..Effect::default()
        };
        let known = self.known(change);
        let key = known.key.clone();
        let had = before.and_then(|known| known.key);
        let selected = self.is_selected(tag);
        if selected || key.is_some() || self.image.watched.policy.rule().is_relative() {
            self.known.insert(tag, known);
        }
        if let Some(key) = &key {
            self.ranked.insert(key.clone(), tag);
        }
        let live = change.digest.is_some() && !change.tombstone;
        effect.only_lower = selected && !live && self.best_is_lower();
        effect.matters = selected || self.is_better(key.as_ref()) || self.is_better(had.as_ref());
        effect
    }

    /// Returns whether a candidate with this key may be selected.
    fn is_better(&self, key: Option<&Key>) -> bool {
        let (Some(key), selection) = (key, &self.image.selection) else {
            return false;
        };
        let stays = |one: &Chosen| {
            let known = self.known.get(&one.tag_id);
            known.is_some_and(|known| known.row.digest.as_ref() == Some(&one.digest))
        };
        match selection {
            Some(one) if stays(one) && !self.rule.orders_by_build() => *key > one.key,
            _ => true,
        }
    }

    fn best_is_lower(&self) -> bool {
        let best = self.ranked.last_key_value().map(|(key, _)| key);
        best.zip(self.image.selection.as_ref())
            .is_some_and(|(best, one)| *best < one.key)
    }

    /// Returns whether this change replaces an image that waited for `min_age`.
    fn is_too_short(&self, known: &Known, change: &Change) -> bool {
        let lasted = change.recorded_at - known.row.recorded_at;
        let young = lasted < self.image.watched.policy.min_age();
        let replaced = change.digest != known.row.digest;
        let selection = self.image.selection.as_ref();
        let wanted = selection.is_none_or(|one| {
            let moved =
                one.tag_id == change.tag_id && known.row.digest.as_ref() != Some(&one.digest);
            moved || known.key.as_ref().is_some_and(|key| *key > one.key)
        });
        young && replaced && wanted && known.key.is_some()
    }

    fn known(&self, change: &Change) -> Known {
        let fit = match &change.digest {
            Some(_) => self.rule.fit(change.manifest.as_ref()),
            None => Fit::Unread,
        };
        let misfit = matches!(fit, Fit::Misfit(_));
        let row = TagRow {
            tag_id: change.tag_id,
            tag: change.tag.clone(),
            digest: change.digest.clone(),
            head_at: change.head_at,
            revision: change.revision,
            recorded_at: change.recorded_at,
            tombstone: change.tombstone,
            created: change.created,
            // A manifest that is not read now is never read: nothing looks for it.
            read: true,
            commit: change.commit.clone(),
            fit: match fit {
                Fit::Fits => Some(true),
                Fit::Misfit(_) => Some(false),
                Fit::Unread => None,
            },
        };
        let candidate = row.digest.is_some() && !row.tombstone && !misfit;
        Known {
            key: candidate.then(|| self.key(&row)).flatten(),
            row,
            fit,
            head: change.head(),
        }
    }

    fn key(&self, row: &TagRow) -> Option<Key> {
        let times = Times {
            pushed: row.head_at,
            created: row.created,
        };
        self.rule.key(&row.tag, times).ok()
    }

    /// Returns the best candidates: as many as decide the choice. `many`: the first ones never do,
    /// since others may share their value.
    pub(super) fn best(&self, many: bool, now: OffsetDateTime) -> Vec<TagRow> {
        let many = many || self.rule.orders_by_build();
        let mut rows = Vec::new();
        for depth in DEPTHS.into_iter().skip(usize::from(many)) {
            let ids = self.ranked.values().rev().take(depth);
            let known = ids.filter_map(|id| self.known.get(id));
            rows = known.map(|known| known.row.clone()).collect();
            if rows.len() < depth || self.image.decided(&rows, now) {
                break;
            }
        }
        rows
    }

    /// Returns the facts of the choice.
    pub(super) fn facts<'f>(&'f self, best: &'f [TagRow]) -> Facts<'f> {
        let selected = self.image.selection.as_ref();
        let selected = selected.and_then(|one| self.known.get(&one.tag_id));
        let fit = selected.map_or(Fit::Unread, |known| known.fit.clone());
        self.image
            .facts(best, selected.map(|known| &known.row), fit)
    }

    /// Returns the head of a tag.
    pub(super) fn head(&self, tag: i64) -> Option<&Head> {
        self.known.get(&tag).map(|known| &known.head)
    }

    /// Returns whether a better image waits for `min_age`.
    pub(super) fn is_young(&self, now: OffsetDateTime) -> bool {
        let Some((key, id)) = self.ranked.last_key_value() else {
            return false;
        };
        let Some(known) = self.known.get(id) else {
            return false;
        };
        let young = known.row.recorded_at + self.image.watched.policy.min_age() > now;
        let selection = self.image.selection.as_ref();
        young
            && selection.is_none_or(|one| {
                *key > one.key
                    || one.tag_id == *id && known.row.digest.as_ref() != Some(&one.digest)
            })
    }

    /// Keeps a selection that a rollout has carried out. The candidates of a relative rule are
    /// others after another selection.
    pub(super) fn select(&mut self, chosen: Chosen) {
        let other = self.image.selection.as_ref().map(|one| &one.tag) != Some(&chosen.tag);
        self.image.selection = Some(chosen);
        if !other || !self.rule.is_relative() {
            return;
        }
        self.rule = self.image.present_rule().1;
        let keys: Vec<(i64, Option<Key>)> = self
            .known
            .iter()
            .map(|(id, known)| {
                let live = known.row.digest.is_some() && !known.row.tombstone;
                let fits = live && known.row.fit != Some(false);
                (*id, fits.then(|| self.key(&known.row)).flatten())
            })
            .collect();
        self.ranked.clear();
        for (id, key) in keys {
            if let Some(known) = self.known.get_mut(&id) {
                known.key.clone_from(&key);
            }
            self.ranked.extend(key.map(|key| (key, id)));
        }
    }
}

impl Change {
    /// Returns the head of the tag. The registry is never asked in a replay.
    pub(super) fn head(&self) -> Head {
        Head {
            revision: self.revision,
            digest: self.digest.clone(),
            origin: self.origin,
            own_time: true,
            held_before: false,
            confirmed_at: None,
            manifest: match self.tombstone {
                true => ManifestState::Tombstone,
                false => ManifestState::Read,
            },
            recorded_at: self.recorded_at,
        }
    }
}
