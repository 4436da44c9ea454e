//! Reads the entries of one file, each by itself: a mistake in one hides no other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use tagtrail_proto::{Name, Registry};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::broken::{Broken, Table};
use crate::document::{ConfigError, Document};
use crate::{
    ApiTriggers, Cluster, Door, NamedSecret, Notify, Pages, RegistryAccess, Source, Token, Trigger,
    cure,
};

/// The keys of the main file.
const KEYS: [&str; 10] = [
    "source",
    "registry",
    "trigger",
    "token",
    "notify",
    "cluster",
    "secret",
    "api_triggers",
    "pages",
    "triggers",
];
/// The keys of a file in the folder of triggers.
const TRIGGERS: [&str; 2] = ["trigger", "notify"];

/// The entries of one file, without a look at other files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    pub(crate) document: Arc<Document>,
    pub(crate) source: Vec<Source>,
    pub(crate) registry: Vec<RegistryAccess>,
    pub(crate) trigger: Vec<Trigger>,
    pub(crate) token: Vec<Token>,
    pub(crate) notify: Vec<Notify>,
    pub(crate) cluster: Vec<Cluster>,
    pub(crate) pages: Pages,
    pub(crate) secret: Vec<NamedSecret>,
    pub(crate) api_triggers: Option<ApiTriggers>,
    /// The folder of triggers, as written.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) broken: Vec<Broken>,
    /// The good entries as written, by table and name.
    pub(crate) written: BTreeMap<(Table, String), toml::Value>,
    /// The aliases of all registries, also of entries that are broken elsewhere: an alias decides
    /// under which name history is written.
    pub(crate) aliases: Vec<(Registry, Vec<Spanned<String>>)>,
}

impl Entries {
    /// Reads the entries of the main file.
    ///
    /// # Errors
    /// The text is not TOML, or has other tables.
    pub(crate) fn read(document: Document) -> Result<Entries, ConfigError> {
        Entries::read_keys(document, &KEYS)
    }

    /// Reads the entries of a file in the folder of triggers.
    ///
    /// # Errors
    /// The text is not TOML, or has other tables than triggers and receivers of messages.
    pub(crate) fn read_triggers(document: Document) -> Result<Entries, ConfigError> {
        let mut entries = Entries::read_keys(document, &TRIGGERS)?;
        entries.limit_messages();
        for trigger in &mut entries.trigger {
            trigger.door = Door::Folder;
        }
        Ok(entries)
    }

    /// Limits the messages of entries without `triggers` to the triggers of the file: its team
    /// gets no messages about the triggers of others by default.
    fn limit_messages(&mut self) {
        let good = self.trigger.iter().map(|one| one.name().to_owned());
        let broken = self.broken.iter().filter(|one| one.table == Table::Trigger);
        let broken = broken.filter_map(|one| one.name.clone());
        let own: Vec<String> = good.chain(broken).collect();
        for notify in &mut self.notify {
            if !notify.limit_to(&own) {
                continue;
            }
            // Another trigger in the file changes the entry.
            let key = (Table::Notify, notify.name.get_ref().to_string());
            if let Some(toml::Value::Table(written)) = self.written.get_mut(&key) {
                written.insert("triggers".to_owned(), own.clone().into());
            }
        }
    }

    /// Returns the folder of triggers.
    pub(crate) fn triggers_folder(&self) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(self.document.folder().join(folder))
    }

    fn read_keys(document: Document, known: &[&str]) -> Result<Entries, ConfigError> {
        let mut entries = Entries {
            document: Arc::new(document),
            ..Entries::default()
        };
        let document = Arc::clone(&entries.document);
        let root = DeTable::parse(document.text()).map_err(|err| {
            let message = format!("{}; it is not TOML", err.message().trim());
            document.error(err.span(), message)
        })?;
        for (key, value) in root.into_inner() {
            match key.get_ref().as_ref() {
                other if !known.contains(&other) => {
                    return Err(unknown(&document, key.span(), other, known));
                }
                "triggers" => entries.folder = Some(read(&document, "triggers", value)?),
                "source" => entries.source = entries.table(Table::Source, value)?,
                "registry" => {
                    entries.aliases = aliases(&value);
                    entries.registry = entries.table(Table::Registry, value)?;
                }
                "trigger" => entries.trigger = entries.table(Table::Trigger, value)?,
                "token" => entries.token = entries.table(Table::Token, value)?,
                "notify" => entries.notify = entries.table(Table::Notify, value)?,
                "cluster" => entries.cluster = entries.table(Table::Cluster, value)?,
                "secret" => entries.secret = entries.table(Table::Secret, value)?,
                "api_triggers" => {
                    entries.api_triggers = Some(read(&document, "api_triggers", value)?);
                }
                "pages" => entries.pages = read(&document, "pages", value)?,
                _ => {}
            }
        }
        entries.find_secrets();
        Ok(entries)
    }

    /// Reads the entries of one table. Those that can't be read are noted as broken.
    fn table<T: DeserializeOwned>(
        &mut self,
        table: Table,
        value: Spanned<DeValue<'_>>,
    ) -> Result<Vec<T>, ConfigError> {
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            let message = "invalid type: map, expected a sequence";
            let cure = cure::cure(table.as_str(), message);
            let message = format!("{table}: {message}{cure}");
            return Err(self.document.error(Some(span), message));
        };
        let mut good = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            let name = name(&value);
            let written = toml::Value::deserialize(ValueDeserializer::from(value.clone()));
            match read(&self.document, &format!("{table}[{at}]"), value) {
                Ok(entry) => {
                    good.push(entry);
                    if let (Some(name), Ok(written)) = (name, written) {
                        self.written.entry((table, name)).or_insert(written);
                    }
                }
                Err(problem) => self.broken.push(Broken {
                    table,
                    name,
                    second: false,
                    problem,
                }),
            }
        }
        Ok(good)
    }

    /// Makes the paths of secrets relative to the folder of the file.
    fn find_secrets(&mut self) {
        let folder = self.document.folder().to_owned();
        for source in &mut self.source {
            let secret = source.secret.take();
            source.secret = secret.map(|secret| secret.in_folder(&folder));
        }
        for token in &mut self.token {
            token.secret = token.secret.clone().in_folder(&folder);
        }
        for registry in &mut self.registry {
            let password = registry.password.take();
            registry.password = password.map(|secret| secret.in_folder(&folder));
            let ca = registry.ca.take();
            registry.ca = ca.map(|ca| ca.in_folder(&folder));
            let proxy = registry.proxy.take();
            registry.proxy = proxy.map(|proxy| proxy.in_folder(&folder));
        }
        for cluster in &mut self.cluster {
            let kubeconfig = cluster.kubeconfig.take();
            cluster.kubeconfig = kubeconfig.map(|secret| secret.in_folder(&folder));
        }
        let identity = self.pages.identity.take();
        self.pages.identity = identity.map(|identity| identity.in_folder(&folder));
        for notify in &mut self.notify {
            notify.document = Arc::clone(&self.document);
        }
        for trigger in &mut self.trigger {
            trigger.document = Arc::clone(&self.document);
            let name = trigger.name.get_ref().to_string();
            let written = self.written.get(&(Table::Trigger, name));
            let written = written.and_then(|written| serde_json::to_value(written).ok());
            trigger.raw = Arc::new(written.unwrap_or_default());
        }
    }
}

/// Reads one value. `key` is its place, for the error.
fn read<T: DeserializeOwned>(
    document: &Document,
    key: &str,
    value: Spanned<DeValue<'_>>,
) -> Result<T, ConfigError> {
    let reader = ValueDeserializer::from(value);
    serde_path_to_error::deserialize(reader).map_err(|err| {
        let below = err
            .path()
            .to_string()
            .replace(".$__serde_spanned_private_value", "")
            .replace(".?", "");
        let key = match below.as_str() {
            "." => key.to_owned(),
            below => format!("{key}.{below}"),
        };
        let inner = err.into_inner();
        let message = inner.message().trim();
        let cure = cure::cure(&key, message);
        document.error(inner.span(), format!("{key}: {message}{cure}"))
    })
}

fn unknown(document: &Document, span: Range<usize>, key: &str, known: &[&str]) -> ConfigError {
    let message = format!(
        "unknown field `{key}`, expected one of {}",
        known
            .iter()
            .map(|key| format!("`{key}`"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let cure = cure::cure(key, &message);
    document.error(Some(span), format!("{key}: {message}{cure}"))
}

/// Returns the name of an entry whose other keys may be wrong.
fn name(entry: &Spanned<DeValue<'_>>) -> Option<String> {
    let text = entry.get_ref().get("name")?.get_ref().as_str()?;
    let is_name = text.parse::<Name>().is_ok() || text.parse::<Registry>().is_ok();
    is_name.then(|| text.to_owned())
}

/// Returns the aliases of registries whose other keys may be wrong.
fn aliases(registries: &Spanned<DeValue<'_>>) -> Vec<(Registry, Vec<Spanned<String>>)> {
    let entries = registries.get_ref().as_array().into_iter().flatten();
    let of_entry = |entry: &Spanned<DeValue<'_>>| {
        let entry = entry.get_ref();
        let name = entry.get("name")?.get_ref().as_str()?.parse().ok()?;
        let aliases = entry.get("aliases");
        let aliases = aliases.and_then(|aliases| aliases.get_ref().as_array());
        let aliases = aliases.into_iter().flatten().filter_map(|alias| {
            let text = alias.get_ref().as_str()?.to_owned();
            Some(Spanned::new(alias.span(), text))
        });
        Some((name, aliases.collect()))
    };
    entries.filter_map(of_entry).collect()
}
