//! The gateway's settings, and the sources of `tagtrail.toml`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderName;
use tagtrail_bus::BusArgs;
use tagtrail_config::{
    Broken, Checked, ConfigError, File, Fresh, Glob, Names, Pulls, SHORT, Secrets, SourceRegistry,
    Table, Written, is_short,
};
use tagtrail_daemon::Refusals;
use tagtrail_proto::{Action, Name, Push, Registry, Repository};

use crate::proof::credentials::{Credentials, LiveSecrets};
use crate::proof::id_token::{IdTokens, TOKENS_NEED};
use crate::receive::pulls::Sighting;
use crate::setup::replay_warning;
use crate::source::{ALL, Kind, Options, Proof};

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address for webhooks: `POST /hooks/{source}`.
    #[arg(
        long,
        env = "TAGTRAIL_GATEWAY_LISTEN",
        default_value = "127.0.0.1:8400"
    )]
    pub listen: SocketAddr,
    /// File with the sources.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    pub config: PathBuf,
    /// The bus.
    #[command(flatten)]
    pub bus: BusArgs,
}

/// The gateway's part of the file.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) sources: Sources,
    /// The registries that the resolver may ask.
    pub(crate) registries: HashSet<Registry>,
    /// Further names of the gateway's host.
    pub(crate) hosts: Vec<String>,
    /// The broken sources.
    pub(crate) broken: Vec<Broken>,
}

/// The sources of the file.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The sources that can receive events, by name.
    pub(crate) good: HashMap<String, Arc<Source>>,
    /// The names of broken sources. Their senders are told to send again.
    pub(crate) broken: BTreeSet<String>,
    /// The entries as written, by name.
    written: HashMap<String, Written>,
    /// The names of registries.
    names: Names,
}

/// A configured source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) rules: SourceRules,
    pub(crate) credentials: Credentials,
    pub(crate) refusals: Refusals,
}

/// The rules for the events of a source: the decoder, and the repositories that the source may
/// report.
#[derive(Debug)]
pub(crate) struct SourceRules {
    pub(crate) name: Name,
    pub(crate) kind: &'static Kind,
    pub(crate) registry: Option<Registry>,
    /// The settings of the kind.
    pub(crate) options: Options,
    /// The names of registries.
    pub(crate) names: Names,
    repositories: Vec<Glob>,
    /// Whether pulls are observed.
    pub(crate) observes: bool,
}

impl SourceRules {
    /// Returns the report of a tag's digest in a push or delete, if the source observes pulls.
    pub(crate) fn sighting(&self, push: &Push) -> Option<Sighting> {
        let image = push.image().filter(|_| self.observes)?;
        let digest = match push.action {
            Action::Push => push.digest.clone(),
            Action::Delete => None,
        };
        Some(Sighting::Changed(image, digest))
    }

    /// Returns whether the source may report this repository.
    pub(crate) fn may_report(&self, registry: &Registry, repository: &Repository) -> bool {
        let matches = |glob: &Glob| glob.matches(registry, repository);
        self.repositories.is_empty() || self.repositories.iter().any(matches)
    }
}

impl Settings {
    /// Reads the gateway's part of the file, with the secrets of the sources. A source that is
    /// broken now and was good before stays as it was, and so does one whose entry is the same.
    pub(crate) fn read(file: &File, before: Option<&Sources>) -> Settings {
        let (sources, broken) = sources(file, before);
        for one in &broken {
            let name = one.name.as_deref().unwrap_or("?");
            if sources.good.contains_key(name) {
                tracing::error!(
                    source = name,
                    "the source before stays in force: {}",
                    one.problem
                );
                continue;
            }
            tracing::error!(
                source = name,
                "source {name} is broken, and its senders are told to send again later: {}",
                one.problem
            );
        }
        for entry in &file.source {
            // An upgrade must not shut out a sender: only `config check` is strict.
            if let Err(unnamed) = check_registry(file, entry) {
                tracing::warn!(source = %entry.name.get_ref(), "{unnamed}; until then it acts as \"any\"");
            }
            if sources.good.contains_key(entry.name.get_ref().as_ref())
                && let Err(short) = check_secret(file, entry)
            {
                tracing::warn!(source = %entry.name.get_ref(), "{short}; until then the gateway takes the short one");
            }
        }
        let registries = file.registry.iter();
        let registries = registries.map(|access| access.name.get_ref().clone());
        Settings {
            sources,
            registries: registries.collect(),
            hosts: file.hosts(),
            broken,
        }
    }
}

/// Checks that the source names its registry.
pub(crate) fn check_registry(
    file: &File,
    entry: &tagtrail_config::Source,
) -> Result<(), ConfigError> {
    let fixed = Kind::named(entry.kind.get_ref()).and_then(|kind| kind.default_registry);
    if entry.registry.is_some() || fixed.is_some() {
        return Ok(());
    }
    let message = format!(
        "source {} names no registry; add registry = \"registry.example.com\", as images name it, or registry = \"any\" if its events may move the images of every registry",
        entry.name.get_ref()
    );
    Err(file.error_at(entry.name.span().start, "source.registry", message))
}

/// Checks that the secrets of a source can't be guessed.
fn check_secret(file: &File, entry: &tagtrail_config::Source) -> Result<(), ConfigError> {
    let at = entry.name.span().start;
    let secrets = entry.secret.as_ref().map_or(Ok(Vec::new()), Secrets::read);
    let secrets = secrets
        .map_err(|error| file.error_at(at, "source.secret", tagtrail_daemon::chain(&error)))?;
    match secrets.iter().any(is_short) {
        true => Err(file.error_at(at, "source.secret", SHORT)),
        false => Ok(()),
    }
}

/// Checks the gateway's part of the file, secrets included. Returns a line for each source. The
/// rules are stricter than those of the service, which warns instead.
#[must_use]
pub fn check(file: &File) -> Checked {
    let mut checked = Checked::default();
    for broken in file.broken_of(Table::Source) {
        checked.mistakes.push(broken.problem.clone());
    }
    let mut warnings = Vec::new();
    for entry in &file.source {
        let good = source(file, entry).and_then(|source| {
            check_registry(file, entry)?;
            check_secret(file, entry)?;
            Ok(source.rules)
        });
        match good {
            Ok(rules) => {
                checked.lines.push(line(&rules));
                warnings.extend(replay_warning(file, &rules));
            }
            Err(mistake) => checked.mistakes.push(mistake),
        }
    }
    checked.lines.sort();
    checked.lines.extend(warnings);
    checked
}

/// Describes a source in a line.
fn line(rules: &SourceRules) -> String {
    let registry = match &rules.registry {
        Some(registry) => format!("about {registry}"),
        None => "about the registry that its events name".to_owned(),
    };
    let subject = match &rules.options.nats {
        Some(nats) => format!("subject {} and ", nats.subject),
        None => String::new(),
    };
    format!(
        "source {}: {subject}POST /hooks/{} takes {} events {registry}",
        rules.name, rules.name, rules.kind.name
    )
}

/// Makes the sources of the file. One that can't be made is broken, and stops no other.
fn sources(file: &File, before: Option<&Sources>) -> (Sources, Vec<Broken>) {
    let (mut good, mut written) = (HashMap::new(), HashMap::new());
    let before = before.filter(|before| before.names == *file.names());
    let one_before = |name: &String| before.and_then(|before| before.good.get(name)).cloned();
    let mut broken: Vec<Broken> = file.broken_of(Table::Source).cloned().collect();
    for entry in &file.source {
        let name = entry.name.get_ref().to_string();
        let text = file.written(Table::Source, &name).cloned();
        let same =
            text.is_some() && before.and_then(|before| before.written.get(&name)) == text.as_ref();
        if let Some(source) = one_before(&name).filter(|_| same) {
            written.extend(text.map(|text| (name.clone(), text)));
            good.insert(name, source);
            continue;
        }
        match source(file, entry) {
            Ok(source) => {
                written.extend(text.map(|text| (name.clone(), text)));
                good.insert(name, Arc::new(source));
            }
            Err(problem) => {
                good.extend(one_before(&name).map(|source| (name.clone(), source)));
                broken.push(Broken::new(Table::Source, name, problem));
            }
        }
    }
    let names = broken.iter().filter(|broken| !broken.second);
    let names = names.filter_map(|broken| broken.name.clone()).collect();
    let sources = Sources {
        good,
        broken: names,
        written,
        names: file.names().clone(),
    };
    (sources, broken)
}

/// Returns the rules of a source. Secrets are not read.
pub(crate) fn rules(
    file: &File,
    entry: &tagtrail_config::Source,
) -> Result<SourceRules, ConfigError> {
    let at = entry.kind.span().start;
    let Some(kind) = Kind::named(entry.kind.get_ref()) else {
        let known: Vec<&str> = ALL.iter().flat_map(Kind::names).collect();
        let meant = tagtrail_config::closest(entry.kind.get_ref(), &known);
        let meant = meant.map_or_else(String::new, |kind| format!("; did you mean {kind:?}?"));
        let message = format!(
            "{:?} is not a kind of source; the kinds are: {}{meant}",
            entry.kind.get_ref(),
            known.join(", ")
        );
        return Err(file.error_at(at, "source.kind", message));
    };
    let registry = match &entry.registry {
        Some(SourceRegistry::Named(registry)) => Some(file.names().registry(registry.clone())),
        // A default registry always parses: a test checks all of them.
        Some(SourceRegistry::Any) | None => kind
            .default_registry
            .and_then(|registry| registry.parse().ok()),
    };
    if kind.needs_registry && registry.is_none() {
        let message = format!(
            "events of kind {:?} do not name their registry; add registry = \"registry.example.com\"",
            kind.name
        );
        return Err(file.error_at(at, "source.registry", message));
    }
    let mut options = kind.configure(&entry.settings).map_err(|error| {
        let key = format!("source.{}", error.key);
        file.error_at(at, &key, error.message)
    })?;
    options.find_files(file.folder());
    let named = |glob: &Glob| {
        let name = |registry| file.names().registry(registry);
        glob.clone().with_registry(name)
    };
    Ok(SourceRules {
        name: entry.name.get_ref().clone(),
        kind,
        registry,
        options,
        repositories: entry.repositories.iter().map(named).collect(),
        names: file.names().clone(),
        observes: entry.pulls == Pulls::Observe,
    })
}

fn source(file: &File, entry: &tagtrail_config::Source) -> Result<Source, ConfigError> {
    let rules = rules(file, entry)?;
    let header = match &entry.header {
        Some(name) => Some(HeaderName::try_from(name.get_ref()).map_err(|err| {
            file.error_at(
                name.span().start,
                "source.header",
                format!("{err}; name a header, such as X-Tagtrail-Secret"),
            )
        })?),
        None => None,
    };
    let credentials = credentials(file, entry, &rules, header)?;
    Ok(Source {
        rules,
        credentials,
        refusals: Refusals::default(),
    })
}

fn credentials(
    file: &File,
    entry: &tagtrail_config::Source,
    rules: &SourceRules,
    header: Option<HeaderName>,
) -> Result<Credentials, ConfigError> {
    let wrong =
        |key: &str, message: String| Err(file.error_at(entry.name.span().start, key, message));
    if let Some(tokens) = &rules.options.tokens {
        if entry.secret.is_some() {
            let at = entry.kind.span().start;
            return Err(file.error_at(at, "source.audience", TOKENS_NEED));
        }
        let tokens = IdTokens::new(tokens.clone());
        return tokens
            .map(Credentials::tokens)
            .or_else(|error| wrong("source.keys", error));
    }
    let Some(secret) = &entry.secret else {
        // A source with a NATS subject needs no secret. Without a secret, no request is accepted.
        if rules.options.nats.is_some() {
            return Ok(Credentials::default());
        }
        let instead = match rules.kind.proof {
            Proof::IdToken => ", or audience = \"…\" and email = \"…\"",
            _ => "",
        };
        return wrong(
            "source.secret",
            format!(
                "is missing; add secret = {{ env = \"VARIABLE\" }} or {{ file = \"path\" }}{instead}"
            ),
        );
    };
    let of = format!("source {}", entry.name.get_ref());
    let read = secret.clone();
    let make = move || {
        let secrets = read.read();
        secrets
            .map(LiveSecrets::from)
            .map_err(|error| tagtrail_daemon::chain(&error))
    };
    let secrets = match Fresh::new(of, secret.kept().to_vec(), make) {
        Ok(secrets) => secrets,
        Err(error) => return wrong("source.secret", error),
    };
    let signatures = match rules.kind.proof {
        Proof::Signature(signatures) => signatures,
        Proof::Secret | Proof::IdToken => &[],
    };
    Ok(Credentials::new(secrets, header, signatures))
}

#[cfg(test)]
mod tests;
