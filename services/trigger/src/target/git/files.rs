//! The files of a commit that the jobs of a turn need.

use std::collections::{BTreeMap, BTreeSet};

use super::clone::{Clone, Entry};
use super::edits::{Edit, Files, KUSTOMIZATIONS, below, is_yaml};
use super::program::Problem;
use super::settings::Settings;

/// The files, as earlier jobs of the turn have changed them.
#[derive(Default)]
pub(super) struct Loaded {
    contents: Files,
    modes: BTreeMap<String, String>,
    changed: BTreeSet<String>,
}

impl Loaded {
    /// Reads the files that a target may edit. An error for people says that they are too many.
    pub(super) async fn load(
        &mut self,
        clone: &Clone,
        commit: &str,
        settings: &Settings,
    ) -> Result<Result<(), String>, Problem> {
        let entries = clone.list(commit, &settings.path).await?;
        let needed: Vec<&Entry> = entries
            .iter()
            .filter(|entry| {
                !self.contents.contains_key(&entry.path) && needs(settings, &entry.path)
            })
            .collect();
        let files = match clone.read(&needed).await? {
            Ok(files) => files,
            Err(why) => return Ok(Err(why)),
        };
        for (entry, content) in needed.into_iter().zip(files) {
            self.modes.insert(entry.path.clone(), entry.mode.clone());
            self.contents.insert(entry.path.clone(), content);
        }
        Ok(Ok(()))
    }

    pub(super) fn contents(&self) -> &Files {
        &self.contents
    }

    pub(super) fn change(&mut self, files: Files) {
        self.changed.extend(files.keys().cloned());
        self.contents.extend(files);
    }

    /// Returns the changed files with their modes, by path.
    pub(super) fn changed(&self) -> BTreeMap<String, (String, Vec<u8>)> {
        let changed = self.changed.iter().filter_map(|path| {
            let mode = self.modes.get(path)?.clone();
            Some((path.clone(), (mode, self.contents.get(path)?.clone())))
        });
        changed.collect()
    }
}

/// Returns whether an edit of the target may be of this file.
fn needs(settings: &Settings, path: &str) -> bool {
    settings.edits.iter().any(|edit| match edit {
        Edit::Markers => is_yaml(path),
        Edit::Kustomize => KUSTOMIZATIONS
            .iter()
            .any(|name| below(&settings.path, name) == path),
        Edit::Yaml(place) => below(&settings.path, &place.file) == path,
    })
}
