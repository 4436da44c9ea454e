//! Compares the list of a repository's tags with history.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};
use tagtrail_proto::{Repository, Tag};
use tagtrail_registry::{Found, NextPage, TagList};

use super::pass::{Difference, MAX_DIFFERENCES, Pass, ReconcileError, RepositoryPass};
use super::store::{self, Counts};

/// Pages read of a list, because a broken registry may send a list without an end.
const PAGES: usize = 100_000;
/// Times that a list is read again from its beginning, because the registry refuses its next page.
const RESTARTS: u32 = 2;

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
            failure: None,
        });
        self.failure = None;
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
            if !complete {
                entry.failure = self.failure.take();
            }
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
        let mut next: Option<NextPage> = None;
        let mut restarts = 0;
        for _ in 0..PAGES {
            let page = match self.list(repository, next.as_ref()).await? {
                Some(TagList::Page(page)) => page,
                Some(TagList::Absent) => return Ok(true), // Deleted, with all its tags.
                Some(TagList::PageRefused(why)) => {
                    match page_after_refusal(next.take(), &mut restarts) {
                        AfterRefusal::Ask(page) => next = page,
                        AfterRefusal::End => {
                            tracing::info!(registry = %self.settings.name, "a full page ends the list of the tags of {}/{repository}: the registry links to no next page, and asked anyway it refuses: {why}", self.settings.name);
                            return Ok(true);
                        }
                        AfterRefusal::GiveUp => {
                            let image = format!("{}/{repository}", self.settings.name);
                            tracing::warn!(registry = %self.settings.name, "the list of tags of {image} is incomplete, so its deleted tags are not looked for in this pass: the registry refuses a page after the first: {why}");
                            self.failure = Some(why);
                            return Ok(false);
                        }
                    }
                    continue;
                }
                None => return Ok(false),
            };
            let has_tags = !page.tags.is_empty();
            // A page may repeat tags: after a refused page, or if the registry ignores the cursor.
            let new: Vec<Tag> = page
                .tags
                .into_iter()
                .filter(|tag| listed.add(tag))
                .collect();
            self.count(|counts| counts.tags += new.len() as u64);
            // Some registries send all tags at once.
            let size = usize::try_from(store::PAGE).unwrap_or(usize::MAX);
            for tags in new.chunks(size) {
                if !self.compare_tags(id, repository, first, tags).await? {
                    return Ok(false);
                }
            }
            let is_repeated =
                has_tags && new.is_empty() && next.as_ref().is_some_and(NextPage::is_guessed);
            match page.next {
                Some(_) if page.is_empty => {
                    // Perhaps a circle of empty pages.
                    self.failure = Some("the list of tags has an empty page".to_owned());
                    return Ok(false);
                }
                _ if is_repeated => return Ok(true),
                Some(page) => next = Some(page),
                None => return Ok(true),
            }
        }
        self.failure = Some("the list of tags has no end".to_owned());
        Ok(false)
    }

    /// Compares tags of the list with history. Returns false if the registry gave no answer.
    async fn compare_tags(
        &mut self,
        id: Option<i64>,
        repository: &Repository,
        first: bool,
        tags: &[Tag],
    ) -> Result<bool, ReconcileError> {
        if self.shared.shutdown.is_cancelled() {
            return Ok(false);
        }
        let known = match id {
            Some(id) => store::heads(self.db, id, &tags.iter().collect::<Vec<_>>()).await?,
            None => Default::default(),
        };
        for tag in tags {
            match known.get(tag) {
                Some(Some(digest)) => {
                    if !self.is_due(repository, tag) {
                        continue;
                    }
                    self.count(|counts| counts.asked += 1);
                    match self.check_again(repository, tag, Some(digest)).await? {
                        Some(Found::Same) => {}
                        Some(Found::Other(_) | Found::Absent) => self.note(repository, tag, false),
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
        Ok(true)
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
            if self.shared.shutdown.is_cancelled() {
                return Ok(());
            }
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
                .images()
                .tags
                .contains(&(repository.clone(), tag.clone()))
    }
}

/// The request that follows a refused page.
#[derive(Debug, PartialEq, Eq)]
enum AfterRefusal {
    /// This page; `None`: the first.
    Ask(Option<NextPage>),
    /// None: the list has no such page.
    End,
    /// None: the list stays incomplete.
    GiveUp,
}

/// Decides which page to request after the registry refused `page`. A registry may refuse a page
/// whose cursor is a tag that was deleted meanwhile, so an earlier tag is tried, and then the list
/// from its beginning.
fn page_after_refusal(page: Option<NextPage>, restarts: &mut u32) -> AfterRefusal {
    let is_guessed = page.as_ref().is_some_and(NextPage::is_guessed);
    match page.and_then(NextPage::earlier) {
        Some(earlier) => AfterRefusal::Ask(Some(earlier)),
        // The registry named no such page.
        None if is_guessed => AfterRefusal::End,
        None if *restarts < RESTARTS => {
            *restarts += 1;
            AfterRefusal::Ask(None)
        }
        None => AfterRefusal::GiveUp,
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
    /// Returns true if the set had no such tag.
    fn add(&mut self, tag: &Tag) -> bool {
        self.hashes.insert(self.key.hash_one(tag.as_ref()))
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
        assert!(listed.add(&tag("a")) && !listed.add(&tag("a")));
        assert!(listed.has(&tag("a")) && !listed.has(&tag("b")));
    }
}
