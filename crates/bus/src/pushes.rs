//! The streams of pushes: one, `PUSHES`, or several, `PUSHES_0` …, each with a share of the
//! partitions.
//!
//! A server that syncs each message syncs several streams at the same time. A replicated stream
//! syncs all messages that wait at once, and several of them hinder each other. So the number of
//! streams is a setting of its own.
//!
//! The subject of a push names its partition, and no two streams may take the same subject. So the
//! subjects of the streams alone say where the pushes of a partition go ([`Layout`]), and a move is
//! a change of subjects. A stream that gave a partition up keeps the pushes, and is read to its end
//! before the next one is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use tagtrail_proto::Subject;

use crate::topology::{Stream, create, existing, update};
use crate::wait::Patience;
use crate::{Bus, BusError};

/// Most streams that are made without being asked for by number: `deploy/nats/nats.conf` names
/// them.
const AT_MOST: u16 = 8;
/// Time in which a move is attempted again: the server may be away for a moment, or a service makes
/// the same stream.
const MOVING: Duration = Duration::from_secs(30);
/// Key, in the metadata, of the number of streams of pushes.
const STREAMS_KEY: &str = "tagtrail.streams";
/// Key, in the metadata, of the greatest number of streams that there have been.
const MOST_KEY: &str = "tagtrail.streams-most";

/// Returns the number of streams that suits a server with this number of copies.
#[must_use]
pub fn suitable(partitions: u16, replicas: u8) -> u16 {
    if replicas > 1 {
        1
    } else {
        partitions.min(AT_MOST)
    }
}

/// The streams of pushes, and the one that takes the pushes of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Existing streams, also those that take no pushes any more.
    pub streams: Arc<[Stream]>,
    /// By partition. `None`: no stream takes them, during a move.
    owners: Arc<[Option<Stream>]>,
}

/// A stream of pushes on the server.
struct Found {
    stream: Stream,
    config: Config,
}

impl Layout {
    /// Returns the stream that takes the pushes of a partition.
    #[must_use]
    pub fn owner(&self, partition: u16) -> Option<Stream> {
        *self.owners.get(usize::from(partition))?
    }

    fn of(found: &[Found], partitions: u16) -> Layout {
        let owner = |partition| {
            let mut found = found.iter();
            let found = found.find(|found| found.takes(partition));
            found.map(|found| found.stream)
        };
        Layout {
            streams: found.iter().map(|found| found.stream).collect(),
            owners: (0..partitions).map(owner).collect(),
        }
    }

    /// Keeps the owner of a partition that no stream takes for the moment.
    fn after(self, before: &Layout) -> Layout {
        let owners = self.owners.iter().zip(0..);
        let owners = owners.map(|(owner, partition)| owner.or_else(|| before.owner(partition)));
        Layout {
            owners: owners.collect(),
            ..self
        }
    }
}

impl Found {
    fn takes(&self, partition: u16) -> bool {
        let subject = Subject::all_pushes(partition);
        let mut subjects = self.config.subjects.iter();
        subjects.any(|has| *has == subject || has == Subject::ALL_PUSHES)
    }

    fn number(&self, key: &str) -> u16 {
        let number = self.config.metadata.get(key);
        number.and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    /// Returns the greatest number of streams that there have been, as this stream has it.
    fn most(&self) -> u16 {
        self.number(MOST_KEY).max(self.number(STREAMS_KEY))
    }
}

/// Returns the streams for this number of them.
fn streams_of(count: u16) -> Vec<Stream> {
    if count <= 1 {
        return vec![Stream::Pushes];
    }
    (0..=u8::MAX)
        .take(usize::from(count))
        .map(Stream::PushesOf)
        .collect()
}

/// Returns the partitions of stream number `number` of `count`: partition p is in stream p mod
/// count.
fn share_of(number: u16, count: u16, partitions: u16) -> impl Iterator<Item = u16> {
    (0..partitions).filter(move |partition| partition % count.max(1) == number)
}

/// Returns the subjects of stream number `number` of `count`.
fn subjects_of(number: u16, count: u16, partitions: u16) -> Vec<String> {
    share_of(number, count, partitions)
        .map(Subject::all_pushes)
        .collect()
}

/// The wanted settings of a stream, with these subjects.
fn wanted(stream: Stream, subjects: Vec<String>, size: Size) -> Config {
    let config = stream.config(size.partitions, size.replicas);
    // A stream without subjects would get its name as the subject, to which nobody publishes.
    let subjects = if subjects.is_empty() {
        vec![stream.name().to_owned()]
    } else {
        subjects
    };
    let mut metadata = config.metadata;
    metadata.extend([
        (STREAMS_KEY.to_owned(), size.streams.to_string()),
        (MOST_KEY.to_owned(), size.most.to_string()),
    ]);
    Config {
        subjects,
        metadata,
        ..config
    }
}

/// The numbers of a layout.
#[derive(Debug, Clone, Copy)]
struct Size {
    partitions: u16,
    replicas: u8,
    streams: u16,
    /// The greatest number of streams that there have been.
    most: u16,
}

impl Size {
    fn of(found: &[Found], partitions: u16, replicas: u8, streams: u16) -> Size {
        let most = found.iter().map(Found::most).max();
        Size {
            partitions,
            replicas,
            streams,
            most: most.unwrap_or(1).max(streams),
        }
    }
}

async fn find(context: &jetstream::Context) -> Result<Vec<Found>, BusError> {
    let mut found = Vec::new();
    let mut look = |stream, config: Option<Config>| {
        found.extend(config.map(|config| Found { stream, config }));
        // PUSHES may have been deleted, and others may have been lost.
        found.iter().map(Found::most).max().unwrap_or(AT_MOST)
    };
    let mut most = look(Stream::Pushes, existing(context, Stream::Pushes).await?);
    for number in 0..=u8::MAX {
        if u16::from(number) >= most {
            break;
        }
        let stream = Stream::PushesOf(number);
        most = look(stream, existing(context, stream).await?);
    }
    Ok(found)
}

/// Creates missing streams of pushes, brings the settings of the others up to date, and returns the
/// layout. Moves no partition. `streams` is the number of streams, if there are none yet.
pub(crate) async fn ensure(
    context: &jetstream::Context,
    partitions: u16,
    replicas: u8,
    streams: u16,
) -> Result<Layout, BusError> {
    let mut found = find(context).await?;
    let present = found.iter().map(|found| found.number(STREAMS_KEY)).max();
    let streams = present.unwrap_or(streams).clamp(1, partitions);
    let size = Size::of(&found, partitions, replicas, streams);
    for found in &found {
        let mut wanted = wanted(found.stream, found.config.subjects.clone(), size);
        // A move writes these numbers.
        for key in [STREAMS_KEY, MOST_KEY] {
            let has = found.config.metadata.get(key).cloned();
            wanted.metadata.extend(has.map(|has| (key.to_owned(), has)));
        }
        update(context, &found.config, &wanted).await?;
    }
    for (number, stream) in (0..).zip(streams_of(streams)) {
        let free = |partition| !found.iter().any(|found| found.takes(partition));
        let missing = !found.iter().any(|found| found.stream == stream);
        if missing && share_of(number, streams, partitions).all(free) {
            let mut config = wanted(stream, subjects_of(number, streams, partitions), size);
            if streams == 1 {
                config.subjects = vec![Subject::ALL_PUSHES.to_owned()];
            }
            let config = create(context, config).await?;
            found.push(Found { stream, config });
        }
    }
    Ok(Layout::of(&found, partitions))
}

/// Moves the partitions to this number of streams, one stream after the other. While the partitions
/// of a stream move, the server refuses their pushes, and registries send them again. May be broken
/// off and repeated at any point.
async fn arrange(
    context: &jetstream::Context,
    partitions: u16,
    replicas: u8,
    streams: u16,
) -> Result<(), BusError> {
    let mut found = find(context).await?;
    let size = Size::of(&found, partitions, replicas, streams);
    for found in &mut found {
        if found
            .config
            .subjects
            .iter()
            .any(|subject| subject == Subject::ALL_PUSHES)
        {
            change(context, found, subjects_of(0, 1, partitions), size).await?;
        }
    }
    for (number, stream) in (0..).zip(streams_of(streams)) {
        let share = subjects_of(number, streams, partitions);
        for other in found.iter_mut().filter(|found| found.stream != stream) {
            let has = other.config.subjects.iter();
            let kept: Vec<String> = has
                .filter(|subject| !share.contains(subject))
                .cloned()
                .collect();
            change(context, other, kept, size).await?;
        }
        match found.iter_mut().find(|found| found.stream == stream) {
            Some(own) => {
                let mut subjects = own.config.subjects.clone();
                subjects.retain(|subject| subject != stream.name() && !share.contains(subject));
                subjects.extend(share);
                change(context, own, subjects, size).await?;
            }
            None => {
                let config = create(context, wanted(stream, share, size)).await?;
                found.push(Found { stream, config });
            }
        }
    }
    if let Some(only) = found
        .iter_mut()
        .find(|found| streams == 1 && found.stream == Stream::Pushes)
    {
        change(context, only, vec![Subject::ALL_PUSHES.to_owned()], size).await?;
    }
    Ok(())
}

/// Gives a stream these subjects.
async fn change(
    context: &jetstream::Context,
    found: &mut Found,
    subjects: Vec<String>,
    size: Size,
) -> Result<(), BusError> {
    let wanted = wanted(found.stream, subjects, size);
    update(context, &found.config, &wanted).await?;
    found.config.subjects = wanted.subjects;
    found.config.metadata.extend(wanted.metadata);
    Ok(())
}

impl Bus {
    /// Creates missing streams, and brings the settings of the others up to date.
    pub(crate) async fn ensure_all(&self) -> Result<(), BusError> {
        let (partitions, replicas) = (self.partitions, self.replicas);
        let streams = self.push_streams.unwrap_or(1);
        let layout = ensure(&self.context, partitions, replicas, streams).await?;
        self.layout
            .send_modify(|known| *known = layout.after(known));
        crate::topology::ensure(&self.context, partitions, replicas).await
    }

    /// Asks the server for the streams of pushes.
    ///
    /// # Errors
    /// [`BusError::Unreachable`].
    pub async fn present_layout(&self) -> Result<Layout, BusError> {
        let found = find(&self.context).await?;
        let layout = Layout::of(&found, self.partitions);
        self.layout
            .send_modify(|known| *known = layout.after(known));
        Ok(self.layout())
    }

    /// Returns the streams of pushes, as this process last saw them, at most 10 s ago.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout.borrow().clone()
    }

    /// Returns the stream that keeps the messages of a subject.
    pub(crate) fn stream_of(&self, subject: &Subject) -> Stream {
        let owner = match subject {
            Subject::Push { partition, .. } => self.layout.borrow().owner(*partition),
            _ => None,
        };
        owner.unwrap_or(Stream::of(subject))
    }

    /// Returns the first partition whose pushes no stream takes, because a move was broken off.
    #[must_use]
    pub fn partition_without_stream(&self) -> Option<u16> {
        let layout = self.layout();
        (0..self.partitions).find(|partition| layout.owner(*partition).is_none())
    }

    /// Returns whether each partition is in the stream that it has with this number of streams.
    #[must_use]
    pub fn has_streams_of_pushes(&self, streams: u16) -> bool {
        let layout = self.layout();
        (0..).zip(streams_of(streams)).all(|(number, stream)| {
            let mut share = share_of(number, streams, self.partitions);
            share.all(|partition| layout.owner(partition) == Some(stream))
        })
    }

    /// Moves the pushes of all partitions to this number of streams. Streams keep the pushes that
    /// they have. `sources` names the streams that partitions are read from; the others are read
    /// from PUSHES.
    ///
    /// # Errors
    /// [`BusError::Unsuitable`] if a partition still has to be read from a stream that it has left:
    /// pushes of one more stream between would be left out. After other errors the move may be
    /// repeated.
    pub async fn move_pushes(
        &self,
        streams: u16,
        sources: &HashMap<u16, String>,
    ) -> Result<(), BusError> {
        let found = find(&self.context).await?;
        for partition in 0..self.partitions {
            let source = sources.get(&partition);
            let source = source.map_or(Stream::Pushes.name(), String::as_str);
            let owner = found.iter().find(|found| found.takes(partition));
            if let Some(owner) = owner
                && owner.stream.name() != source
                && owner.number(STREAMS_KEY) != streams
            {
                return Err(BusError::Unsuitable(format!(
                    "partition {partition} has moved from {source} to {} and is not read to the end of {source} yet: let the indexers run until they report it, then migrate again",
                    owner.stream.name()
                )));
            }
        }
        tracing::info!(streams, "moving the pushes to other streams");
        let mut patience = Patience::of(MOVING);
        while let Err(error) = arrange(&self.context, self.partitions, self.replicas, streams).await
        {
            let BusError::Unreachable(cause) = error else {
                return Err(error);
            };
            patience
                .pause(format!("moving the pushes: {cause}"))
                .await?;
        }
        self.ensure_all().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_in_one_stream() {
        for streams in [1, 3, 8] {
            let mut all: Vec<String> = (0..streams)
                .flat_map(|number| subjects_of(number, streams, 8))
                .collect();
            all.sort();
            let expected: Vec<String> = (0..8).map(Subject::all_pushes).collect();
            assert_eq!(all, expected, "{streams}");
        }
        assert_eq!(streams_of(1), [Stream::Pushes]);
        assert_eq!(streams_of(2), [0, 1].map(Stream::PushesOf));
    }

    #[test]
    fn several_streams_are_for_servers_with_one_copy() {
        assert_eq!(
            [
                suitable(8, 1),
                suitable(4, 1),
                suitable(64, 1),
                suitable(8, 3)
            ],
            [8, 4, 8, 1]
        );
    }
}
