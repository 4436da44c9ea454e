//! Slots for attempts: how many attempts this process makes at the same time.
//!
//! Each kind of target has slots of its own, and each place within a kind takes only a part of
//! them. So a slow or dead target holds up neither another kind nor other places of its kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::config::Limits;

/// Where a target acts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The kind of the target, as in `target.<kind>`.
    pub(crate) kind: &'static str,
    /// The part of the kind that shares the fate of a target, such as the server of a URL. `None`:
    /// each target stands for itself.
    pub(crate) part: Option<String>,
    /// Most attempts at this part at the same time.
    pub(crate) at_once: usize,
}

/// The slots of this process.
#[derive(Debug)]
pub(crate) struct Slots {
    limits: Limits,
    in_use: Mutex<InUse>,
    /// Notified when a slot is free again.
    freed: Notify,
}

#[derive(Debug, Default)]
struct InUse {
    kinds: BTreeMap<&'static str, usize>,
    places: BTreeMap<Place, usize>,
}

/// A slot in use. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    place: Place,
}

impl Slots {
    pub(crate) fn new(limits: Limits) -> Arc<Slots> {
        Arc::new(Slots {
            limits,
            in_use: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a slot, if one is free for this place.
    pub(crate) fn take(self: &Arc<Self>, place: Place) -> Option<Slot> {
        let mut in_use = self.locked();
        if !self.is_free(&in_use, &place) {
            return None;
        }
        *in_use.kinds.entry(place.kind).or_default() += 1;
        if place.part.is_some() {
            *in_use.places.entry(place.clone()).or_default() += 1;
        }
        Some(Slot {
            slots: Arc::clone(self),
            place,
        })
    }

    /// Returns whether a slot is free for this place.
    pub(crate) fn has_free(&self, place: &Place) -> bool {
        self.is_free(&self.locked(), place)
    }

    /// Returns the number of slots of a kind.
    pub(crate) fn limit(&self, kind: &str) -> usize {
        self.limits.of(kind)
    }

    /// Waits until a slot is free again.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Returns the number of slots in use, by kind.
    pub(crate) fn in_use(&self) -> BTreeMap<&'static str, usize> {
        self.locked().kinds.clone()
    }

    fn is_free(&self, in_use: &InUse, place: &Place) -> bool {
        let of_kind = in_use.kinds.get(place.kind).copied().unwrap_or_default();
        let of_place = in_use.places.get(place).copied().unwrap_or_default();
        of_kind < self.limits.of(place.kind) && of_place < place.at_once
    }

    fn locked(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut in_use = self.slots.locked();
        if let Some(count) = in_use.kinds.get_mut(self.place.kind) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = in_use.places.get_mut(&self.place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                in_use.places.remove(&self.place);
            }
        }
        drop(in_use);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(server: &str) -> Place {
        Place {
            kind: "webhook",
            part: Some(server.to_owned()),
            at_once: 250,
        }
    }

    const COMMAND: Place = Place {
        kind: "command",
        part: None,
        at_once: usize::MAX,
    };

    fn slots(attempts: u16, commands: u16) -> Arc<Slots> {
        Slots::new(Limits {
            attempts,
            commands,
            workers: None,
        })
    }

    #[test]
    fn a_full_kind_leaves_the_slots_of_another_kind() {
        let slots = slots(3, 2);
        let taken: Vec<Slot> = (0..2).filter_map(|_| slots.take(COMMAND)).collect();
        assert_eq!(taken.len(), 2);
        assert!(slots.take(COMMAND).is_none());
        assert!(slots.take(webhook("a")).is_some());
        drop(taken);
        assert!(slots.has_free(&COMMAND));
        assert_eq!(slots.in_use()["command"], 0);
    }

    #[test]
    fn a_place_takes_only_a_part_of_its_kind() {
        let slots = slots(1000, 1);
        let dead: Vec<Slot> = (0..1000)
            .filter_map(|_| slots.take(webhook("dead")))
            .collect();
        assert_eq!(dead.len(), 250);
        assert!(slots.take(webhook("other")).is_some());
        drop(dead);
        assert!(slots.has_free(&webhook("dead")));
        assert!(slots.locked().places.is_empty());
    }

    #[test]
    fn the_old_name_of_the_number_of_commands_still_counts() {
        let limits = Limits {
            workers: Some(5),
            ..Limits::default()
        };
        assert_eq!((limits.of("command"), limits.of("webhook")), (5, 1000));
    }
}
