//! `[[registry]]`: the registries that may be asked.

use std::net::{IpAddr, Ipv6Addr};
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

    /// Returns a line for each setting that works and should be another one.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let urls = [
            ("url", Some(self.url.get_ref())),
            ("realm", self.realm.as_ref().map(Spanned::get_ref)),
        ];
        for (key, url) in urls {
            let Some((scheme, host)) = url.and_then(|url| scheme_and_host(url)) else {
                continue;
            };
            let address: Option<IpAddr> = host.parse().ok();
            let address = address.map(|address| address.to_canonical());
            let local = host == "localhost"
                || host.ends_with(".localhost")
                || address.is_some_and(|address| address.is_loopback());
            let name = self.name.get_ref();
            if scheme == "http" && self.password.is_some() && !local {
                warnings.push(format!(
                    "warning: registry {name}: {key} is plain http, so others on the way can read the password; use https"
                ));
            }
            let link_local = match address {
                Some(IpAddr::V4(ip)) => ip.is_link_local(),
                Some(IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip == AWS_METADATA,
                None => false,
            };
            if link_local {
                warnings.push(format!(
                    "warning: registry {name}: {key} is a link-local address, as metadata services have; use the address of the registry"
                ));
            }
        }
        warnings
    }
}

/// The metadata service of AWS in IPv6.
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns scheme and host of an address, without port and credentials.
fn scheme_and_host(url: &str) -> Option<(&str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let server = authority.rsplit('@').next()?;
    let host = match server.strip_prefix('[') {
        Some(inside) => inside.split(']').next()?,
        None => server.split(':').next()?,
    };
    Some((scheme, host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::File;

    #[test]
    fn passwords_over_plain_http_and_addresses_of_metadata_services_are_warned_of() {
        let password = "username = \"u\"\npassword = { env = \"P\" }\n";
        for (url, more, expected) in [
            ("https://r.example.com", password, ""),
            ("http://r.example.com", "", ""),
            ("http://localhost:5000", password, ""),
            ("http://127.0.0.1:5000", password, ""),
            ("http://[::1]:5000", password, ""),
            ("http://r.example.com:5000/x", password, "url is plain http"),
            ("http://u:localhost@10.0.0.1", password, "url is plain http"),
            (
                "https://169.254.169.254/",
                "",
                "url is a link-local address",
            ),
            (
                "https://[fd00:ec2::254]:1",
                "",
                "url is a link-local address",
            ),
            (
                "https://[::ffff:169.254.1.1]",
                "",
                "url is a link-local address",
            ),
        ] {
            let text = format!("[[registry]]\nname = \"r.example.com\"\nurl = \"{url}\"\n{more}");
            let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
            let warnings = file.registry[0].warnings();
            match expected {
                "" => assert_eq!(warnings, Vec::<String>::new(), "{url}"),
                _ => assert!(
                    warnings.len() == 1 && warnings[0].contains(expected),
                    "{url}: {warnings:?}"
                ),
            }
        }
    }
}
