//! Compares the list of a repository's tags with history.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};
use tagtrail_proto::{Repository, Tag};
use tagtrail_registry::Found;

use super::pass::{Difference, MAX_DIFFERENCES, Pass, ReconcileError, RepositoryPass};
use super::store::{self, Counts};

/// Pages read of a list, because a broken registry may send a list without an end.
const PAGES: usize = 100_000;

impl Pass<'_> {
    /// Lists a repository, and notes the differences. `id` is the row of the repository, if history
    /// has it.
    pub(super) async fn reconcile_repository(
        &mut self,
        id: Option<i64>,
        repository: Repository,
    ) -> Result<(), ReconcileError> {
        if self.shared.shutdown.is_cancelled() {
            return Ok(());
        }
        let first = !store::was_reconciled(self.db, &self.settings.name, &repository).await?;
        self.progress.push(RepositoryPass {
            repository: repository.clone(),
            counts: Counts::default(),
            complete: true,
            listed: false,
        });
        let mut listed = TagSet::default();
        let complete = self
            .compare_list(id, &repository, first, &mut listed)
            .await?;
        // A tag missing from the list counts as deleted only if the list is complete.
        if let (Some(id), true) = (id, complete) {
            self.find_missing(id, &repository, &listed).await?;
        }
        if let Some(entry) = self.progress.last_mut() {
            entry.complete &= complete;
            entry.listed = true;
        }
        if self.differences.len() >= MAX_DIFFERENCES || self.progress.len() >= MAX_DIFFERENCES {
            self.confirm().await?;
        }
        Ok(())
    }

    /// Changes the counts of the current repository.
    fn count(&mut self, count: impl FnOnce(&mut Counts)) {
        if let Some(entry) = self.progress.last_mut() {
            count(&mut entry.counts);
        }
    }

    /// Returns true at the end of the list, false if a page can't be read.
    async fn compare_list(
        &mut self,
        id: Option<i64>,
        repository: &Repository,
        first: bool,
        listed: &mut TagSet,
    ) -> Result<bool, ReconcileError> {
        let mut next = None;
        for _ in 0..PAGES {
            let page = match self.list(repository, next.as_ref()).await? {
                Some(Some(page)) => page,
                Some(None) => return Ok(true), // The repository is deleted, with all its tags.
                None => return Ok(false),
            };
            self.count(|counts| counts.tags += page.tags.len() as u64);
            // Some registries send all tags at once.
            let size = usize::try_from(store::PAGE).unwrap_or(usize::MAX);
            for tags in page.tags.chunks(size) {
                let known = match id {
                    Some(id) => store::heads(self.db, id, &tags.iter().collect::<Vec<_>>()).await?,
                    None => Default::default(),
                };
                for tag in tags {
                    listed.add(tag);
                    match known.get(tag) {
                        Some(Some(digest)) => {
                            if !self.is_due(repository, tag) {
                                continue;
                            }
                            self.count(|counts| counts.asked += 1);
                            match self.check_again(repository, tag, Some(digest)).await? {
                                Some(Found::Same) => {}
                                Some(Found::Other(_) | Found::Absent) => {
                                    self.note(repository, tag, false)
                                }
                                None => return Ok(false),
                            }
                        }
                        Some(None) => self.note(repository, tag, false),
                        None => self.note(repository, tag, first),
                    }
                }
                if self.differences.len() >= MAX_DIFFERENCES {
                    self.confirm().await?;
                }
            }
            match page.next {
                Some(_) if page.tags.is_empty() => return Ok(false), // A circle of empty pages.
                Some(page) => next = Some(page),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn find_missing(
        &mut self,
        id: i64,
        repository: &Repository,
        listed: &TagSet,
    ) -> Result<(), ReconcileError> {
        let mut after = String::new();
        loop {
            let page = store::tags(self.db, id, &after).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = last.to_string();
            for (tag, _) in page.iter().filter(|(tag, _)| !listed.has(tag)) {
                self.note(repository, tag, false);
            }
            if self.differences.len() >= MAX_DIFFERENCES {
                self.confirm().await?;
            }
        }
    }

    fn note(&mut self, repository: &Repository, tag: &Tag, first_sight: bool) {
        self.differences.push(Difference {
            repository: repository.clone(),
            tag: tag.clone(),
            first_sight,
        });
    }

    /// Returns true if a tag is checked in this pass. The hash of the name chooses one of `parts`
    /// passes, the same on every instance.
    fn is_due(&self, repository: &Repository, tag: &Tag) -> bool {
        self.parts == 1
            || part_of(repository, tag, self.parts) == self.number % self.parts
            || self
                .settings
                .in_triggers
                .contains(&(repository.clone(), tag.clone()))
    }
}

fn part_of(repository: &Repository, tag: &Tag, parts: u64) -> u64 {
    let hash = Sha256::new()
        .chain_update(repository.as_ref())
        .chain_update(b":")
        .chain_update(tag.as_ref())
        .finalize();
    let start: [u8; 8] = std::array::from_fn(|index| hash[index]);
    u64::from_be_bytes(start) % parts
}

/// The tags of a list, as hashes of eight bytes. A collision would hide a deletion, which may
/// happen once in ten thousand years. The random key keeps an attacker from choosing tags that
/// collide.
#[derive(Debug, Default)]
struct TagSet {
    hashes: HashSet<u64>,
    key: RandomState,
}

impl TagSet {
    fn add(&mut self, tag: &Tag) {
        self.hashes.insert(self.key.hash_one(tag.as_ref()));
    }

    fn has(&self, tag: &Tag) -> bool {
        self.hashes.contains(&self.key.hash_one(tag.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_spread_evenly_over_the_parts() {
        let repository: Repository = "shop/web".parse().unwrap();
        let mut sizes = [0; 7];
        for number in 0..7000 {
            let tag: Tag = format!("v{number}").parse().unwrap();
            sizes[usize::try_from(part_of(&repository, &tag, 7)).unwrap()] += 1;
        }
        assert!(
            sizes.iter().all(|size| (850..1150).contains(size)),
            "{sizes:?}"
        );
    }

    #[test]
    fn only_added_tags_are_in_the_set() {
        let mut listed = TagSet::default();
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        listed.add(&tag("a"));
        assert!(listed.has(&tag("a")) && !listed.has(&tag("b")));
    }
}
