//! Compares our selection with the tag that the other system has selected.

use std::collections::BTreeMap;
use std::path::Path;

use tagtrail_policy::selection::{Outcome, Policy, TagHead, Times};
use tagtrail_proto::{Digest, Tag, clean_text};
use time::OffsetDateTime;

use super::found::{Found, Watched, compile};
use super::objects::read_text;
use crate::client::api::{Api, Failure};
use crate::client::print::{field, items};
use crate::client::screen::Screen;
use crate::client::table::{Column, table};

/// Most tags of a repository that are read.
const MOST_TAGS: usize = 100_000;
/// Most bytes of a list of tags.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// The result for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The same tag.
    Same,
    /// Two tags with the same place in the order: Flux takes one at random.
    Tie(String),
    /// Another tag; `None`: no tag at all.
    Other(Option<String>),
    /// The tag of the other system is not among the tags.
    Missing,
    /// The other system has selected none.
    None,
}

/// The tags of each repository.
pub(super) type Tags = BTreeMap<String, Vec<String>>;

/// Reads a file with an image, such as `registry.example.com/shop/web:1.2.3`, in each line.
pub(super) fn from_file(file: &Path) -> anyhow::Result<Tags> {
    let text = read_text(file, &mut { MOST_BYTES })?;
    let mut tags = Tags::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (repository, tag) = super::found::reference(line);
        let Some(tag) = tag else {
            anyhow::bail!(
                "{}, line {number}: write an image with its tag, such as registry.example.com/shop/web:1.2.3",
                file.display()
            );
        };
        tags.entry(repository).or_default().push(tag);
    }
    Ok(tags)
}

/// Reads the tags of the triggers' repositories from history.
pub(super) async fn from_api(api: &Api, found: &Found) -> Result<Tags, Failure> {
    let mut tags = Tags::new();
    for repository in found.triggers.iter().flat_map(|trigger| {
        let images = trigger.images.values();
        images.filter_map(repository)
    }) {
        if tags.contains_key(&repository) {
            continue;
        }
        let query = [("repository", Some(repository.clone()))];
        let list = match api.list(&["tags"], &query, MOST_TAGS, None).await {
            Ok(list) => list,
            // The repository has no history yet.
            Err(failure) if failure.problem == "repository_unknown" => serde_json::Value::Null,
            Err(failure) => return Err(failure),
        };
        let tag = |item| {
            let image = field(item, "image");
            image.rsplit(':').next().unwrap_or_default().to_owned()
        };
        tags.insert(repository, items(&list).iter().map(tag).collect());
    }
    Ok(tags)
}

fn repository(image: &Watched) -> Option<String> {
    match image {
        Watched::Policy(settings) => settings[0].1.as_str().map(str::to_owned),
        Watched::Tag(_) => None,
    }
}

/// Compares each policy. Returns the table, and whether no selection differs.
pub(super) fn compare(found: &Found, tags: &Tags, screen: &Screen) -> (String, bool) {
    let (mut rows, mut counts) = (Vec::new(), BTreeMap::new());
    let mut same = true;
    for trigger in &found.triggers {
        for (name, image) in &trigger.images {
            let Watched::Policy(settings) = image else {
                continue;
            };
            let Ok(policy) = compile(settings) else {
                continue;
            };
            let theirs = trigger.selected.get(name).map(String::as_str);
            let known = repository(image).and_then(|repository| tags.get(&repository));
            let verdict = verdict(&policy, known.map_or(&[], Vec::as_slice), theirs);
            let (word, ours) = match &verdict {
                Verdict::Same => ("same", theirs.unwrap_or_default()),
                Verdict::Tie(ours) => ("tie", ours.as_str()),
                Verdict::Other(ours) => ("other", ours.as_deref().unwrap_or("-")),
                Verdict::Missing => ("no such tag", "-"),
                Verdict::None => ("not selected", "-"),
            };
            same &= matches!(verdict, Verdict::Same | Verdict::Tie(_) | Verdict::None);
            *counts.entry(word).or_insert(0_usize) += 1;
            let theirs = clean_text(theirs.unwrap_or("-"), 128);
            rows.push([
                trigger.object.clone(),
                theirs,
                ours.to_owned(),
                word.to_owned(),
            ]);
        }
    }
    let columns = [
        Column::name("OBJECT"),
        Column::name("THEIRS"),
        Column::name("OURS"),
        Column::state("RESULT"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    let text = table(screen, columns, rows);
    (format!("{text}\n{}", counts.join(", ")), same)
}

fn verdict(policy: &Policy, tags: &[String], theirs: Option<&str>) -> Verdict {
    let Some(theirs) = theirs else {
        return Verdict::None;
    };
    let now = OffsetDateTime::now_utc();
    let times = Times {
        pushed: now,
        created: None,
    };
    let heads: Vec<TagHead> = tags
        .iter()
        .filter_map(|tag| tag.parse::<Tag>().ok())
        .map(|tag| TagHead {
            // Which digest a tag has does not matter: only names are compared.
            digest: Some(Digest::sha256_of(tag.as_ref().as_bytes())),
            tag,
            times,
            recorded_at: now,
            tombstone: false,
            fit: policy.rule().fit(None),
        })
        .collect();
    if !heads.iter().any(|head| head.tag.as_ref() == theirs) {
        return Verdict::Missing;
    }
    let selection = policy.select(&heads, None, now);
    let Outcome::Select { head, .. } = selection.outcome else {
        return Verdict::Other(None);
    };
    let ours = head.tag.as_ref();
    // A key ends with the name of its tag.
    let place = |tag: &str| -> Option<Vec<u8>> {
        let key = policy.rule().key(&tag.parse().ok()?, times).ok()?;
        let bytes = key.as_bytes();
        Some(bytes[..bytes.len().checked_sub(tag.len())?].to_vec())
    };
    match (place(ours), place(theirs)) {
        _ if ours == theirs => Verdict::Same,
        (Some(our), Some(their)) if our == their => Verdict::Tie(ours.to_owned()),
        _ => Verdict::Other(Some(ours.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::screen::tests::screen;

    #[test]
    fn ties_under_a_filter_are_told_from_other_tags() {
        let flux = r"
kind: ImageRepository
metadata: {name: web, namespace: n}
spec: {image: r.example.com/web}
---
kind: ImagePolicy
metadata: {name: web, namespace: n}
spec:
  imageRepositoryRef: {name: web}
  filterTags: {pattern: '^x-(\d+)-', extract: $1}
  policy: {numerical: {order: asc}}
status: {latestRef: {name: r.example.com/web, tag: TAG}}";
        let list = ["x-1-a", "x-2-a", "x-2-b", "y"].map(str::to_owned).to_vec();
        for (tag, count, good) in [
            ("x-2-b", "1 same", true),
            ("x-2-a", "1 tie", true),
            ("x-1-a", "1 other", false),
            ("x-9-a", "1 no such tag", false),
        ] {
            let objects = super::super::objects::parse(&flux.replace("TAG", tag)).unwrap();
            let mut found = Found::default();
            super::super::flux::import(&objects, &mut found);
            found.finish();
            let tags = Tags::from([("r.example.com/web".to_owned(), list.clone())]);
            let (text, same) = compare(&found, &tags, &screen(80));
            assert!(text.ends_with(count), "{text}");
            assert_eq!(same, good, "{text}");
        }
    }
}
