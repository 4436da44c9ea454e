//! Places in the feed: for each series of events the ordinal of the last one that a follower has
//! seen.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_condition::changes::Changes;

/// A kind of events. The word is the name of the server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventKind {
    /// A revision was recorded.
    Revision,
    /// The state of a rollout has changed.
    Rollout,
    /// A hold was set, or has ended.
    Hold,
    /// The condition of a trigger has changed.
    Trigger,
}

/// The kinds of events that a follower asks for.
pub(crate) type Kinds = BTreeSet<EventKind>;

impl EventKind {
    pub(crate) const ALL: [EventKind; 4] = [
        EventKind::Revision,
        EventKind::Rollout,
        EventKind::Hold,
        EventKind::Trigger,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EventKind::Revision => "revision",
            EventKind::Rollout => "rollout",
            EventKind::Hold => "hold",
            EventKind::Trigger => "trigger",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<EventKind> {
        EventKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    /// The table of the changes of this kind. `None`: revisions have partitions.
    pub(super) fn table(self) -> Option<Changes> {
        match self {
            EventKind::Revision => None,
            EventKind::Rollout => Some(Changes::Rollouts),
            EventKind::Hold => Some(Changes::Holds),
            EventKind::Trigger => Some(Changes::Conditions),
        }
    }
}

/// Events with ordinals of their own, which followers receive in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    /// The revisions of a partition.
    Revisions(u16),
    /// The rows of a table of changes.
    Changes(Changes),
}

impl Series {
    pub(super) fn kind(self) -> EventKind {
        match self {
            Series::Revisions(_) => EventKind::Revision,
            Series::Changes(Changes::Rollouts) => EventKind::Rollout,
            Series::Changes(Changes::Holds) => EventKind::Hold,
            Series::Changes(Changes::Conditions) => EventKind::Trigger,
        }
    }

    fn text(self) -> String {
        match self {
            Series::Revisions(partition) => partition.to_string(),
            Series::Changes(_) => self.kind().as_str().to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Series> {
        match EventKind::parse(text) {
            Some(kind) => kind.table().map(Series::Changes),
            None => text.parse().ok().map(Series::Revisions),
        }
    }
}

/// Ordinals of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) series: Series,
    /// The last ordinal before the range.
    pub(super) after: u64,
    /// The last ordinal of the range.
    pub(super) until: u64,
}

/// The place of a follower in the feed: of each series the last ordinal seen, or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place(BTreeMap<Series, u64>);

impl<const N: usize> From<[(Series, u64); N]> for Place {
    fn from(series: [(Series, u64); N]) -> Place {
        Place(series.into())
    }
}

impl Place {
    /// Returns the place with the ordinals of these partitions.
    pub(super) fn of_revisions(ends: Vec<(u16, u64)>) -> Place {
        let series = |(partition, ordinal)| (Series::Revisions(partition), ordinal);
        Place(ends.into_iter().map(series).collect())
    }

    pub(super) fn of(&self, series: Series) -> u64 {
        self.get(series).unwrap_or(0)
    }

    pub(super) fn get(&self, series: Series) -> Option<u64> {
        self.0.get(&series).copied()
    }

    pub(super) fn set(&mut self, series: Series, ordinal: u64) {
        self.0.insert(series, ordinal);
    }

    /// Leaves out the series of other kinds.
    pub(super) fn retain(&mut self, kinds: impl Fn(EventKind) -> bool) {
        self.0.retain(|series, _| kinds(series.kind()));
    }

    /// Returns the series with their ordinals.
    pub(super) fn series(&self) -> impl Iterator<Item = (Series, u64)> {
        self.0.iter().map(|(series, ordinal)| (*series, *ordinal))
    }

    /// Whether all series are of these kinds.
    pub(crate) fn is_of(&self, kinds: &Kinds) -> bool {
        self.0.keys().all(|series| kinds.contains(&series.kind()))
    }

    /// Returns the ordinals of these kinds between this place and a later place.
    pub(super) fn until(&self, end: &Place, kinds: &Kinds) -> Vec<Range> {
        let range = |(series, until)| Range {
            series,
            after: self.of(series),
            until,
        };
        let asked = end
            .series()
            .filter(|(series, _)| kinds.contains(&series.kind()));
        let ranges = asked.map(range);
        ranges.filter(|range| range.after < range.until).collect()
    }

    /// Writes the place as `series:ordinal`, separated by commas. A series is the number of a
    /// partition, or the word of a kind.
    pub(crate) fn text(&self) -> String {
        let parts = self
            .series()
            .map(|(series, ordinal)| format!("{}:{ordinal}", series.text()));
        parts.collect::<Vec<_>>().join(",")
    }

    /// Reads a place that [`Place::text`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Place> {
        if text.is_empty() {
            return Some(Place::default());
        }
        let part = |part: &str| {
            let (series, ordinal) = part.split_once(':')?;
            let ordinal: u64 = ordinal.parse().ok()?;
            Some((
                Series::parse(series)?,
                i64::try_from(ordinal).ok()?.unsigned_abs(),
            ))
        };
        text.split(',').map(part).collect::<Option<_>>().map(Place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    #[test]
    fn a_place_survives_writing_and_reading() {
        for text in [
            "",
            "0:1",
            "0:17,3:4,255:9223372036854775807",
            "0:17,rollout:3,hold:0,trigger:12",
        ] {
            assert_eq!(place(text).text(), text);
        }
        for wrong in [
            "0",
            "0:",
            ":1",
            "0:-1",
            "0:9223372036854775808",
            "65536:1",
            "0:1,",
            "a:1",
            "revision:1",
        ] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_ranges_between_two_places_are_by_series() {
        let kinds = Kinds::from([EventKind::Revision, EventKind::Hold]);
        let ranges = place("0:5,1:7").until(&place("0:9,1:7,2:3,rollout:8,hold:2"), &kinds);
        let range = |series, after, until| Range {
            series,
            after,
            until,
        };
        assert_eq!(
            ranges,
            [
                range(Series::Revisions(0), 5, 9),
                range(Series::Revisions(2), 0, 3),
                range(Series::Changes(Changes::Holds), 0, 2)
            ]
        );
        assert_eq!(place("0:9").until(&place("0:5"), &kinds), []);
    }

    #[test]
    fn each_kind_has_a_word() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventKind::parse("source"), None);
    }
}
