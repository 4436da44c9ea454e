//! The whole file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::broken::{Broken, Table};
use crate::document::{ConfigError, Document};
use crate::entries::Entries;
use crate::files;
use crate::{
    ApiTriggers, Cluster, HostName, Identity, NamedSecret, Names, Notify, RegistryAccess, Source,
    Token, Trigger,
};

/// The whole file: the entries that can be used, and those that are broken.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// The sources, which may send events.
    pub source: Vec<Source>,
    /// The registries to ask.
    pub registry: Vec<RegistryAccess>,
    /// The triggers.
    pub trigger: Vec<Trigger>,
    /// The tokens for the API.
    pub token: Vec<Token>,
    /// The receivers of messages about rollouts.
    pub notify: Vec<Notify>,
    /// The clusters that targets act on.
    pub cluster: Vec<Cluster>,
    /// The settings of requests by browsers.
    pub pages: Pages,
    /// The secrets that triggers of the API may name.
    pub secret: Vec<NamedSecret>,
    /// The settings of triggers of the API; without them there are none.
    pub api_triggers: Option<ApiTriggers>,
    /// The entries that can't be used as written.
    pub broken: Vec<Broken>,
    written: BTreeMap<(Table, String), toml::Value>,
    names: Names,
    document: Arc<Document>,
    /// All files, the main file first.
    pub(crate) documents: Vec<Arc<Document>>,
    pub(crate) folder: Option<PathBuf>,
}

/// The settings of requests by browsers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// A proxy before the pages that signs people in.
    pub identity: Option<Identity>,
    /// Names by which clients reach the gateway and the api, in addition to `localhost`.
    #[serde(default)]
    pub hosts: Vec<HostName>,
}

/// The path of an empty file, in place of a missing `tagtrail.toml`.
pub const NONE: &str = "/dev/null";

impl File {
    /// Reads the file, and the files of its folder of triggers. An entry that can't be used is in
    /// [`File::broken`].
    ///
    /// # Errors
    /// The file can't be read, is not TOML, or has unknown tables.
    pub fn load(path: &Path) -> Result<File, ConfigError> {
        files::load(path, &mut BTreeMap::new(), None)
    }

    /// Returns the names by which clients reach the gateway and the api.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.pages.hosts.iter().map(HostName::to_string).collect()
    }

    /// Returns the path to read: the given path, which must exist, or `tagtrail.toml` if present,
    /// or else an empty file.
    #[must_use]
    pub fn find(given: Option<&Path>) -> PathBuf {
        let usual = Path::new("tagtrail.toml");
        match given {
            Some(given) => given.to_owned(),
            None if usual.exists() => usual.to_owned(),
            None => PathBuf::from(NONE),
        }
    }

    /// Parses the text of the main file alone. `path` is for messages, and relative paths begin in
    /// the folder of `path`.
    ///
    /// # Errors
    /// As [`File::load`].
    pub fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
        Ok(File::of(
            Entries::read(Document::new(path, text))?,
            Vec::new(),
        ))
    }

    /// Puts the entries together. An entry that contradicts an earlier one is broken.
    pub(crate) fn of(main: Entries, others: Vec<Entries>) -> File {
        let folder = main.triggers_folder();
        let Entries {
            document,
            source,
            registry,
            mut trigger,
            token,
            mut notify,
            cluster,
            pages,
            secret,
            api_triggers,
            mut broken,
            mut written,
            aliases,
            folder: _,
        } = main;
        let mut documents = vec![Arc::clone(&document)];
        for other in others {
            documents.push(other.document);
            trigger.extend(other.trigger);
            notify.extend(other.notify);
            broken.extend(other.broken);
            for (key, value) in other.written {
                written.entry(key).or_insert(value);
            }
        }
        let (names, wrong) = Names::of(&document, &aliases, &source);
        let mut file = File {
            pages,
            api_triggers,
            broken,
            written,
            names,
            document,
            documents,
            folder,
            ..File::default()
        };
        let of_alias = |(name, problem): (_, ConfigError)| {
            Broken::new(Table::Registry, format!("{name}"), problem)
        };
        file.broken.extend(wrong.into_iter().map(of_alias));
        let document = Arc::clone(&file.document);
        file.source = file.keep(
            Table::Source,
            source,
            |one| &one.name,
            |_| Arc::clone(&document),
            Source::check,
        );
        file.registry = file.keep(
            Table::Registry,
            registry,
            |one| &one.name,
            |_| Arc::clone(&document),
            RegistryAccess::check,
        );
        file.token = file.keep(
            Table::Token,
            token,
            |one| &one.name,
            |_| Arc::clone(&document),
            Token::check,
        );
        file.notify = file.keep(
            Table::Notify,
            notify,
            |one| &one.name,
            |one| Arc::clone(&one.document),
            Notify::check,
        );
        file.cluster = file.keep(
            Table::Cluster,
            cluster,
            |one| &one.name,
            |_| Arc::clone(&document),
            Cluster::check,
        );
        file.secret = file.keep(
            Table::Secret,
            secret,
            |one| &one.name,
            |_| Arc::clone(&document),
            NamedSecret::check,
        );
        let names = file.names.clone();
        file.trigger = file.keep(
            Table::Trigger,
            trigger,
            |one| &one.name,
            |one| Arc::clone(&one.document),
            |one| one.check(&names),
        );
        file.check_chains_of_files();
        file
    }

    /// Returns the entries of a table that can be used. Notes the others as broken.
    fn keep<T, N: AsRef<str>>(
        &mut self,
        table: Table,
        entries: Vec<T>,
        name: impl Fn(&T) -> &Spanned<N>,
        document: impl Fn(&T) -> Arc<Document>,
        check: impl Fn(&mut T) -> Result<(), Mistake>,
    ) -> Vec<T> {
        let mut seen = BTreeSet::new();
        let mut good = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let (text, at) = (
                name(&entry).get_ref().as_ref().to_owned(),
                name(&entry).span().start,
            );
            let first = seen.insert(text.clone());
            let checked = match first {
                true => check(&mut entry),
                false => Err(Mistake::twice(table, &text, at)),
            };
            let is_broken = self.broken.iter().any(|broken| broken.is(table, &text));
            match checked {
                // A mistake in an alias is noted already.
                Ok(()) if is_broken => {}
                Ok(()) => good.push(entry),
                Err(Mistake { at, key, message }) => self.broken.push(Broken {
                    second: !first,
                    ..Broken::new(table, text, document(&entry).error_at(at, &key, message))
                }),
            }
        }
        good
    }

    /// Returns the names of the registries.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns a file without entries that reads the settings of triggers as this one does.
    #[must_use]
    pub fn reader(&self) -> File {
        File {
            names: self.names.clone(),
            ..File::default()
        }
    }

    /// Returns the entry of a table with this name as it is written.
    #[must_use]
    pub fn written(&self, table: Table, name: &str) -> Option<&toml::Value> {
        self.written.get(&(table, name.to_owned()))
    }

    pub(crate) fn note_written(&mut self, table: Table, name: &str, written: toml::Value) {
        self.written.insert((table, name.to_owned()), written);
    }

    /// Returns the number of mistakes in each file that was read, also of files without any.
    /// `more`: mistakes that a service finds besides.
    #[must_use]
    pub fn mistakes<'a>(
        &'a self,
        more: impl IntoIterator<Item = &'a Broken>,
    ) -> BTreeMap<String, usize> {
        let paths = self.documents.iter().map(|document| document.path());
        // Settings of other doors have the name of a door.
        let files = paths.filter(|path| path.is_file());
        let mut counts: BTreeMap<String, usize> =
            files.map(|path| (path.display().to_string(), 0)).collect();
        let mut seen = Vec::new();
        for one in self.broken.iter().chain(more) {
            // Services return the broken entries of the file among their own.
            if !seen.contains(&&one.problem) {
                seen.push(&one.problem);
                let file = one.problem.path().display().to_string();
                *counts.entry(file).or_default() += 1;
            }
        }
        counts
    }

    /// Returns the broken entries of a table.
    pub fn broken_of(&self, table: Table) -> impl Iterator<Item = &Broken> {
        self.broken
            .iter()
            .filter(move |broken| broken.table == table)
    }

    /// Returns warnings about the file: tags that are read in another spelling, policies that take
    /// other tags than most people expect, and passwords that others could read.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let triggers = self.trigger.iter();
        let images = triggers.flat_map(|trigger| trigger.image_warnings());
        let all = images.chain(self.plain_passwords());
        all.chain(self.approval_warnings())
            .chain(self.rename_warnings())
            .chain(self.chain_warnings())
            .collect()
    }

    /// Returns a warning about each `renamed_from` that names a trigger of these files.
    fn rename_warnings(&self) -> impl Iterator<Item = String> {
        let present: BTreeSet<&Name> = self.trigger.iter().map(|one| one.name.get_ref()).collect();
        self.trigger.iter().filter_map(move |trigger| {
            let old = trigger.renamed_from.as_ref()?;
            let message = format!(
                "no effect while {old} is configured too: remove the key, or the entry of {old}"
            );
            let at = trigger.name.span().start;
            let warning = || trigger.error_at(at, "trigger.renamed_from", message);
            present.contains(old).then(|| warning().to_string())
        })
    }

    /// Returns the error for a mistake that the kind of a source found, in the form of all other
    /// errors.
    #[must_use]
    pub fn error_at(&self, at: usize, key: &str, message: impl std::fmt::Display) -> ConfigError {
        self.document.error_at(at, key, message)
    }

    /// Returns the environment variables that hold secrets: all that the files name by
    /// `{ env = "…" }`, in settings of any kind of source or target.
    #[must_use]
    pub fn secret_variables(&self) -> BTreeSet<String> {
        let documents = self.documents.iter();
        documents
            .flat_map(|document| document.secret_variables())
            .collect()
    }

    /// Returns the folder of the file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.document.folder()
    }
}

/// A mistake in an entry that can be parsed.
pub(crate) struct Mistake {
    pub(crate) at: usize,
    pub(crate) key: String,
    pub(crate) message: String,
}

impl Mistake {
    pub(crate) fn new(at: usize, key: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake {
            at,
            key: key.into(),
            message: message.into(),
        }
    }

    fn twice(table: Table, name: &str, at: usize) -> Mistake {
        let message = match table {
            Table::Registry => format!("{name} is configured twice; keep one"),
            _ => format!("{name:?} is the name of another {table} too; give it a name of its own"),
        };
        Mistake::new(at, format!("{table}.name"), message)
    }
}
