//! `[[registry]]`: the registries that may be asked.

use std::time::Duration;

use serde::Deserialize;
use tagtrail_proto::{Registry, Repository};
use toml::Spanned;

use crate::file::Mistake;
use crate::{Secret, Text, duration};

/// The access to a registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryAccess {
    /// The registry's identity in image names.
    pub name: Spanned<Registry>,
    /// Other names of the registry, in events, triggers, patterns and questions.
    #[serde(default)]
    pub aliases: Vec<Spanned<String>>,
    /// The registry's address.
    pub url: Spanned<String>,
    /// User for Basic or token authentication.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// The address that issues tokens, if its host is not the host of `url`: credentials are sent
    /// to no other host.
    pub realm: Option<Spanned<String>>,
    /// The certificate authority of the registry, besides those of the system.
    pub ca: Option<Secret>,
    /// The proxy to the registry, or `none`. Without this setting: the proxies of the environment.
    pub proxy: Option<Text>,
    /// The interval of comparisons with history. Zero: never.
    #[serde(default = "hourly", with = "duration")]
    pub reconcile: Duration,
    /// The time within which a lost change of a trigger's image is found. Zero: only by
    /// comparisons.
    #[serde(default = "each_minute", with = "duration")]
    pub watch_triggers: Duration,
    /// Repositories to reconcile before the first event.
    #[serde(default)]
    pub watch: Vec<Repository>,
}

const fn hourly() -> Duration {
    Duration::from_secs(60 * 60)
}

const fn each_minute() -> Duration {
    Duration::from_secs(60)
}

impl RegistryAccess {
    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        let urls = [
            ("registry.url", Some(&self.url)),
            ("registry.realm", self.realm.as_ref()),
        ];
        for (key, url) in urls {
            let Some(url) = url else { continue };
            let text = url.get_ref();
            if !text.starts_with("https://") && !text.starts_with("http://") {
                let message = "must start with https:// (or http://)";
                return Err(Mistake::new(url.span().start, key, message));
            }
        }
        if self.username.is_some() != self.password.is_some() {
            let message =
                "a username needs a password and a password a username; give both or neither";
            let at = self.name.span().start;
            return Err(Mistake::new(at, "registry.username", message));
        }
        Ok(())
    }
}
