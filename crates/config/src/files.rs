//! The main file and the folder of triggers, read together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use crate::broken::{Broken, Table};
use crate::document::{ConfigError, Document};
use crate::entries::Entries;
use crate::file::File;

/// Most files of a folder that are read.
const MOST: usize = 10_000;

/// Reads the main file and the files of its folder. `documents` holds the last good texts: a file
/// that is no TOML counts as it was before. So do broken entries that were good in `before`.
pub(crate) fn load(
    path: &Path,
    documents: &mut BTreeMap<PathBuf, Document>,
    before: Option<&File>,
) -> Result<File, ConfigError> {
    let mut broken = Vec::new();
    let mut read = |path: &Path, main: bool| {
        let whole = Document::read(path).and_then(|document| {
            let entries = match main {
                true => Entries::read(document.clone()),
                false => Entries::read_triggers(document.clone()),
            };
            entries.map(|entries| (document, entries))
        });
        let problem = match whole {
            Ok((document, entries)) => {
                documents.insert(path.to_owned(), document);
                return Ok(entries);
            }
            Err(problem) => problem,
        };
        let Some(document) = documents.get(path) else {
            return Err(problem);
        };
        broken.push(Broken::of_file(problem));
        match main {
            true => Entries::read(document.clone()),
            false => Entries::read_triggers(document.clone()),
        }
    };
    let main = read(path, true)?;
    let folder = main.triggers_folder();
    let paths = folder.as_deref().map(list).unwrap_or_default();
    let mut others = Vec::with_capacity(paths.len());
    let mut unread = Vec::new();
    for path in &paths {
        match read(path, false) {
            Ok(entries) => others.push(entries),
            Err(problem) => unread.push(Broken::of_file(problem)),
        }
    }
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let message = "is no folder; make it, or correct `triggers`";
        unread.push(Broken::of_file(ConfigError::of_file(&folder, message)));
    }
    broken.extend(unread);
    documents.retain(|known, _| known == path || paths.contains(known));
    let mut file = File::of(main, others);
    file.broken.extend(broken);
    if let Some(before) = before {
        file.keep_good(before);
    }
    Ok(file)
}

/// Returns the files of a folder of triggers, in the order of their names.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // Hidden files are copies that editors and volumes of Kubernetes keep.
    let is_toml = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(".toml") && !name.starts_with('.')) && path.is_file()
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_toml).take(MOST).collect();
    paths.sort();
    paths
}

impl File {
    /// Takes the good entries of before in place of those that are broken now.
    fn keep_good(&mut self, before: &File) {
        let mut kept = Vec::new();
        for broken in &self.broken {
            if let (Some(name), false) = (&broken.name, broken.second) {
                kept.push((broken.table, name.clone()));
            }
        }
        for (table, name) in kept {
            match table {
                Table::Source => keep(&mut self.source, &before.source, &name, |one| &one.name),
                Table::Registry => {
                    keep(&mut self.registry, &before.registry, &name, |one| &one.name);
                }
                Table::Trigger => keep(&mut self.trigger, &before.trigger, &name, |one| &one.name),
                Table::Token => keep(&mut self.token, &before.token, &name, |one| &one.name),
                Table::Notify => keep(&mut self.notify, &before.notify, &name, |one| &one.name),
                Table::Cluster => keep(&mut self.cluster, &before.cluster, &name, |one| &one.name),
                Table::Secret => keep(&mut self.secret, &before.secret, &name, |one| &one.name),
                Table::File => continue,
            }
            if let Some(written) = before.written(table, &name) {
                self.note_written(table, &name, written.clone());
            }
        }
    }

    /// Returns whether a trigger of before is missing, and no broken entry has its name.
    pub(crate) fn lacks_a_trigger_of(&self, before: &File) -> bool {
        let names: BTreeSet<&str> = self.trigger.iter().map(|one| one.name()).collect();
        let mut before = before.trigger.iter().map(|one| one.name());
        before.any(|name| {
            let broken = || self.broken.iter().any(|one| one.is(Table::Trigger, name));
            !names.contains(name) && !broken()
        })
    }

    /// Returns the folder of triggers.
    pub(crate) fn triggers_folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Returns the files that hold secrets.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        self.documents()
            .flat_map(|document| document.secret_files())
    }

    fn documents(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.documents.iter()
    }
}

/// Adds the entry with this name that was there before.
fn keep<T: Clone, N: AsRef<str>>(
    now: &mut Vec<T>,
    before: &[T],
    name: &str,
    name_of: impl Fn(&T) -> &Spanned<N>,
) {
    let mut before = before.iter();
    let one = before.find(|one| name_of(one).get_ref().as_ref() == name);
    now.extend(one.cloned());
}
