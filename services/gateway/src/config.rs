//! Settings of the gateway, and the sources that they name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::HeaderName;
use tagtrail_bus::BusArgs;
use tagtrail_config::{ConfigError, File, Glob};
use tagtrail_proto::{Name, Registry, Repository};

use crate::auth::Credentials;
use crate::source::{ALL, Kind};

/// Settings, as flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address on which registries are heard: `POST /hooks/{source}`.
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

/// One configured source: who may post, and what is made of it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) voice: Voice,
    pub(crate) credentials: Credentials,
}

/// How a source speaks, and what it may speak for.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) name: Name,
    pub(crate) kind: &'static Kind,
    pub(crate) registry: Option<Registry>,
    repositories: Vec<Glob>,
}

impl Voice {
    /// Whether the source may say something about this repository.
    pub(crate) fn speaks_for(&self, repository: &Repository) -> bool {
        let path = repository.as_ref();
        self.repositories.is_empty() || self.repositories.iter().any(|glob| glob.matches(path))
    }
}

impl Config {
    /// The sources of the file, by name, with their secrets.
    ///
    /// # Errors
    /// What is wrong with the file, with its line and the cure.
    pub(crate) fn sources(&self) -> Result<HashMap<String, Source>, ConfigError> {
        sources(&File::load(&self.config)?)
    }
}

/// Looks at everything that the gateway needs of the file, secrets included, and says what it found there, a line each.
///
/// # Errors
/// What is wrong, with its line and the cure.
pub fn check(file: &File) -> Result<Vec<String>, ConfigError> {
    let mut lines: Vec<String> = sources(file)?
        .into_values()
        .map(|Source { voice, .. }| {
            let registry = match &voice.registry {
                Some(registry) => format!("about {registry}"),
                None => "about whatever registry its events name".to_owned(),
            };
            format!(
                "source {}: POST /hooks/{} takes {} events {registry}",
                voice.name, voice.name, voice.kind.name
            )
        })
        .collect();
    lines.sort();
    Ok(lines)
}

fn sources(file: &File) -> Result<HashMap<String, Source>, ConfigError> {
    file.source
        .iter()
        .map(|entry| Ok((entry.name.get_ref().to_string(), source(file, entry)?)))
        .collect()
}

/// How an entry speaks; its secrets are not read.
pub(crate) fn voice(file: &File, entry: &tagtrail_config::Source) -> Result<Voice, ConfigError> {
    let at = entry.kind.span().start;
    let Some(kind) = Kind::named(entry.kind.get_ref()) else {
        let known: Vec<&str> = ALL.iter().flat_map(Kind::names).collect();
        let message = format!(
            "{:?} is not a kind of source; it is one of: {}",
            entry.kind.get_ref(),
            known.join(", ")
        );
        return Err(file.error_at(at, "source.kind", message));
    };
    if kind.needs_registry && entry.registry.is_none() {
        let message = format!(
            "events of kind {:?} do not say which registry they are about; add registry = \"registry.example.com\"",
            kind.name
        );
        return Err(file.error_at(at, "source.registry", message));
    }
    Ok(Voice {
        name: entry.name.get_ref().clone(),
        kind,
        registry: entry.registry.clone(),
        repositories: entry.repositories.clone(),
    })
}

fn source(file: &File, entry: &tagtrail_config::Source) -> Result<Source, ConfigError> {
    let voice = voice(file, entry)?;
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
    let secrets = entry.secret.read().map_err(|err| {
        let message = tagtrail_daemon::chain(&err);
        file.error_at(entry.name.span().start, "source.secret", message)
    })?;
    Ok(Source {
        voice,
        credentials: Credentials::new(&secrets, header),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SECRET: &str = concat!(
        "secret = { file = \"",
        env!("CARGO_MANIFEST_DIR"),
        "/Cargo.toml\" }"
    );

    fn read(text: &str) -> Result<HashMap<String, Source>, ConfigError> {
        let text = text.replace("SECRET", SECRET);
        sources(&File::parse(&text, Path::new("tagtrail.toml")).unwrap())
    }

    #[test]
    fn a_source_speaks_for_what_its_patterns_match() {
        let sources = read(
            "[[source]]\nname = 'a'\nkind = 'gitlab'\nSECRET\nrepositories = ['shop/**', 'base']",
        )
        .unwrap();
        let speaks_for = |path: &str| sources["a"].voice.speaks_for(&path.parse().unwrap());
        assert_eq!(sources["a"].voice.kind.name, "distribution");
        assert!(speaks_for("shop/web") && speaks_for("base"));
        assert!(!speaks_for("shop") && !speaks_for("base/web") && !speaks_for("other"));
    }

    #[test]
    fn a_source_without_patterns_speaks_for_everything() {
        let sources = read("[[source]]\nname = 'a'\nkind = 'distribution'\nSECRET").unwrap();
        assert!(sources["a"].voice.speaks_for(&"any/thing".parse().unwrap()));
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_a_cure() {
        let message = |text| read(text).unwrap_err().to_string();
        assert_eq!(
            message("[[source]]\nname = 'a'\nkind = 'harbour'\nSECRET"),
            "tagtrail.toml:3: source.kind: \"harbour\" is not a kind of source; it is one of: distribution, gitlab, generic"
        );
        assert_eq!(
            message("[[source]]\nname = 'a'\nkind = 'generic'\nSECRET"),
            "tagtrail.toml:3: source.registry: events of kind \"generic\" do not say which registry they are about; add registry = \"registry.example.com\""
        );
        let unset = message(
            "[[source]]\nname = 'a'\nkind = 'gitlab'\nsecret = { env = 'TAGTRAIL_NEVER_SET' }",
        );
        assert!(
            unset.starts_with("tagtrail.toml:2: source.secret: ")
                && unset.contains("TAGTRAIL_NEVER_SET"),
            "{unset}"
        );
    }
}
