//! An image with a policy, and its choice.

use std::sync::Arc;

use tagtrail_proto::{Digest, Image, Origin, Tag};
use time::OffsetDateTime;

use super::facts::next_look;
use super::why;
use super::{Choice, Chosen, Facts, TagRow};
use crate::agree::AgreeingTag;
use crate::decide::Selected;
use crate::gates::{Head, ManifestState};
use crate::selection::{Change, Fit, Last, Outcome, Rule, TagHead, Times};
use crate::watched::WatchedPolicy;

/// An image with a policy.
#[derive(Debug)]
pub struct PolicyImage {
    /// The policy.
    pub watched: Arc<WatchedPolicy>,
    /// The id of the policy, for the caller.
    pub policy: i32,
    /// SHA-256 of registry, repository and rule, without a selected tag.
    pub fingerprint: Vec<u8>,
    /// The tag that was selected last, of the present repository.
    pub selection: Option<Chosen>,
    /// True if a person released the trigger after a fault of this selection.
    pub released: bool,
}

impl PolicyImage {
    /// Returns an image with the selection before, which counts only in the same repository.
    #[must_use]
    pub fn new(watched: Arc<WatchedPolicy>, selection: Option<Chosen>) -> PolicyImage {
        PolicyImage {
            policy: 0,
            fingerprint: fingerprint(&watched, None),
            selection: selection.filter(|one| {
                one.registry == watched.registry && one.repository == watched.repository
            }),
            watched,
            released: false,
        }
    }

    /// Returns the rule as it applies after the last selection, with its fingerprint.
    #[must_use]
    pub fn present_rule(&self) -> (Vec<u8>, Rule) {
        let rule = self.watched.policy.rule();
        // A changed rule begins again from its own settings.
        let same = |selection: &&Chosen| selection.rule == self.fingerprint;
        match self.selection.as_ref().filter(same) {
            Some(selection) if rule.is_relative() => (
                fingerprint(&self.watched, Some(&selection.tag)),
                rule.after(&selection.tag),
            ),
            _ => (self.fingerprint.clone(), rule.clone()),
        }
    }

    fn last(&self) -> Option<Last> {
        self.selection.as_ref().map(|selection| Last {
            tag: selection.tag.clone(),
            key: selection.key.clone(),
            digest: selection.digest.clone(),
            rule_changed: selection.rule != self.fingerprint,
            released: self.released,
        })
    }

    fn head(&self, row: &TagRow, fit: Fit) -> TagHead {
        TagHead {
            tag: row.tag.clone(),
            digest: row.digest.clone(),
            times: Times {
                pushed: row.head_at,
                created: row.created,
            },
            recorded_at: row.recorded_at,
            tombstone: row.tombstone,
            fit,
        }
    }

    fn candidate(&self, row: &TagRow) -> TagHead {
        let fit = match row.fit {
            _ if !self.watched.policy.rule().needs_manifest() => Fit::Fits,
            Some(true) => Fit::Fits,
            // Misfits are not read.
            Some(false) | None => Fit::Unread,
        };
        self.head(row, fit)
    }

    /// Returns whether the selected tag has the digest that this policy has judged.
    fn is_known(&self, selection: &Chosen, row: &TagRow) -> bool {
        row.digest.as_ref() == Some(&selection.digest) && selection.rule == self.fingerprint
    }

    /// Returns the digest of the selected tag, if its manifest is read and must be judged.
    #[must_use]
    pub fn to_judge<'r>(&self, selected: Option<&'r TagRow>) -> Option<&'r Digest> {
        let row = selected.filter(|row| row.read)?;
        let known = self.is_known(self.selection.as_ref()?, row);
        let judged = known || !self.watched.policy.rule().needs_manifest();
        row.digest.as_ref().filter(|_| !judged)
    }

    /// Returns whether these candidates, the best ones, decide the choice: one of them can be
    /// selected or is waited for, or no tag below them may take the place of the selected one.
    #[must_use]
    pub fn decided(&self, rows: &[TagRow], now: OffsetDateTime) -> bool {
        let policy = &self.watched.policy;
        let usable = |row: &&TagRow| row.fit != Some(false);
        let mut heads = rows.iter().filter(usable).map(|row| self.candidate(row));
        if heads.any(|head| policy.is_conclusive(&head, now)) {
            return true;
        }
        let (Some(selection), Some(lowest)) = (&self.selection, rows.last()) else {
            return false;
        };
        let times = self.candidate(lowest).times;
        let lowest = policy.rule().key_beyond_filters(&lowest.tag, times);
        selection.rule == self.fingerprint && lowest.is_some_and(|key| key <= selection.key)
    }

    /// Returns the facts of a choice: the best candidates, and the tag that was selected last, with
    /// the answer of the rule about its manifest.
    #[must_use]
    pub fn facts<'f>(
        &self,
        rows: &'f [TagRow],
        selected: Option<&'f TagRow>,
        fit: Fit,
    ) -> Facts<'f> {
        let rows: Vec<&TagRow> = rows.iter().filter(|row| row.fit != Some(false)).collect();
        let agreeing = |row: &TagRow, head| AgreeingTag {
            head,
            commit: row.commit.clone(),
        };
        let tags = rows.iter().map(|row| agreeing(row, self.candidate(row)));
        let mut tags: Vec<AgreeingTag> = tags.collect();
        if let (Some(row), Some(selection)) = (selected, &self.selection)
            && rows.iter().all(|one| one.tag_id != row.tag_id)
        {
            let fit = match self.is_known(selection, row) {
                true => Fit::Fits,
                false => fit,
            };
            tags.push(agreeing(row, self.head(row, fit)));
        }
        Facts {
            rows,
            tags,
            selected,
            last: self.last(),
        }
    }

    /// Selects one of these tags.
    pub(super) fn choose(
        &self,
        facts: &Facts<'_>,
        tags: &[TagHead],
        now: OffsetDateTime,
    ) -> Choice {
        let policy = &self.watched.policy;
        let selection = policy.select(tags, facts.last.as_ref(), now);
        let again = selection.again.map(|at| {
            let unread = facts
                .rows
                .iter()
                .filter(|row| row.fit.is_none() && !row.read);
            let since = unread.map(|row| row.recorded_at).max();
            let since = since.filter(|_| policy.rule().needs_manifest());
            since.map_or(at, |since| at.min(next_look(since, now)))
        });
        let (rows, selected_row) = (&facts.rows, facts.selected);
        let reason = why::of_choice(self, tags, selected_row, &selection);
        let choice = match selection.outcome {
            Outcome::Select { head, key, change } => {
                let row = rows.iter().copied().chain(selected_row);
                let row = row.into_iter().find(|row| row.tag == head.tag);
                let chosen = row.zip(head.digest.clone()).map(|(row, digest)| Chosen {
                    registry: self.watched.registry.clone(),
                    repository: self.watched.repository.clone(),
                    tag_id: row.tag_id,
                    tag: head.tag.clone(),
                    key,
                    digest,
                    revision: row.revision,
                    rule: self.fingerprint.clone(),
                    selected_at: now,
                });
                Choice {
                    is_head: true,
                    policy: self.policy,
                    selected: chosen
                        .as_ref()
                        .map(|chosen| selected(chosen, change, head.recorded_at)),
                    selection: chosen,
                    again,
                    reason: None,
                    fault: None,
                }
            }
            Outcome::Keep(_) => self.keep(selected_row, again, true),
            Outcome::Wait { .. } => self.keep(selected_row, again, false),
            Outcome::Hold(fault) => Choice {
                fault: Some(fault),
                ..self.keep(selected_row, again, false)
            },
            Outcome::Nothing => Choice {
                again,
                ..Choice::default()
            },
        };
        Choice { reason, ..choice }
    }

    /// Returns the last selection, if there is one. `store`: as a selection of the present rule.
    pub(super) fn keep(
        &self,
        row: Option<&TagRow>,
        again: Option<OffsetDateTime>,
        store: bool,
    ) -> Choice {
        let Some(last) = &self.selection else {
            return Choice {
                again,
                ..Choice::default()
            };
        };
        let mut kept = last.clone();
        let row = row.filter(|row| row.digest.as_ref() == Some(&last.digest));
        if let Some(row) = row {
            kept.revision = row.revision;
        }
        if kept.rule != self.fingerprint {
            kept.rule.clone_from(&self.fingerprint);
            let times = row.map(|row| self.head(row, Fit::Fits).times);
            let rule = self.watched.policy.rule();
            let key = times.and_then(|times| rule.key_beyond_filters(&kept.tag, times));
            kept.key = key.unwrap_or(kept.key);
        }
        let recorded_at = row.map_or(last.selected_at, |row| row.recorded_at);
        Choice {
            is_head: row.is_some(),
            policy: self.policy,
            // The digest is known: it was selected before.
            selected: Some(selected(&kept, Change::Higher, recorded_at)),
            selection: Some(kept).filter(|kept| store && kept != last),
            again,
            reason: None,
            fault: None,
        }
    }
}

/// Returns the image of a selection. Its head passes all gates; the caller reads the gates of a
/// digest that the last rollout does not have.
fn selected(selection: &Chosen, change: Change, recorded_at: OffsetDateTime) -> Selected {
    Selected {
        image: Image {
            registry: selection.registry.clone(),
            repository: selection.repository.clone(),
            tag: selection.tag.clone(),
        },
        head: Head {
            revision: selection.revision,
            digest: Some(selection.digest.clone()),
            origin: Origin::Event,
            own_time: true,
            held_before: true,
            confirmed_at: None,
            manifest: ManifestState::Read,
            recorded_at,
        },
        configuration: matches!(change, Change::Configuration { .. }),
    }
}

/// Returns SHA-256 of registry, repository, rule and the selected tag, if there is one.
fn fingerprint(watched: &WatchedPolicy, selected: Option<&Tag>) -> Vec<u8> {
    // No name contains a line break.
    let text = format!(
        "{}\n{}\n{}\n{}",
        watched.registry,
        watched.repository,
        selected.map_or("", AsRef::as_ref),
        watched.policy.rule().canonical(),
    );
    Digest::sha256_of(text.as_bytes()).as_bytes().to_vec()
}
