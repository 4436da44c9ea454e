//! Triggers of the API: the settings that a token may choose, and those that only the files may.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::document::ConfigError;
use crate::file::Mistake;
use crate::{Door, File, Secret, Table, Trigger, TriggerGlob};

/// The name of the door, in place of a file.
pub const THE_API: &str = "the API";
/// Most triggers of the API, unless the file says otherwise.
const MOST: u32 = 1000;
/// The kind of target that a trigger of the API may have.
const KIND: &str = "webhook";
/// Deepest nesting of settings.
const DEEPEST: usize = 16;
/// Keys whose values are programs, or read places of this machine.
const REFUSED: [(&str, &str); 6] = [
    ("command", "starts a program, which only a file may do"),
    ("run", "starts a program, which only a file may do"),
    (
        "env",
        "reads a variable; name a secret of the file, { secret = \"…\" }",
    ),
    (
        "file",
        "reads a file; name a secret of the file, { secret = \"…\" }",
    ),
    (
        "renamed_from",
        "takes over the history of another trigger, which only a file may do",
    ),
    (
        "proxy",
        "chooses the way of the request, which only a file may do",
    ),
];

/// `[api_triggers]`: without this table the API makes no triggers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTriggers {
    /// Private addresses to which requests of these triggers may go: an address, or a network such
    /// as `10.1.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<Network>,
    /// Most triggers that the API makes, for all tokens.
    #[serde(default = "most")]
    pub most: u32,
}

fn most() -> u32 {
    MOST
}

/// All that the files allow to triggers of the API.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allowances {
    table: Option<ApiTriggers>,
    /// The `[[secret]]` entries as written, by their names.
    secrets: BTreeMap<String, toml::Value>,
}

/// An address, or all addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let wrong = || {
            format!(
                "{text:?} is no address and no network; write 10.1.2.3, 10.1.0.0/16 or fd00::/8"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        match bits <= most {
            true => Ok(Network { address, bits }),
            false => Err(wrong()),
        }
    }
}

impl Network {
    /// Returns whether the network has this address. An IPv4 address in the form of IPv6 is the
    /// IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// `[[secret]]`: a secret that triggers of the API may name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedSecret {
    /// The name.
    pub name: Spanned<Name>,
    env: Option<String>,
    file: Option<std::path::PathBuf>,
    /// The triggers that may use the secret.
    triggers: Vec<TriggerGlob>,
}

impl NamedSecret {
    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        let at = self.name.span().start;
        if self.triggers.is_empty() {
            let message = "names no trigger; write patterns such as [\"team-a-*\"]";
            return Err(Mistake::new(at, "secret.triggers", message));
        }
        match Secret::of(self.env.clone(), self.file.clone()) {
            Ok(_) => Ok(()),
            Err(message) => Err(Mistake::new(at, "secret", message)),
        }
    }

    /// Returns the place of the secret, as a trigger of a file would write it.
    fn place(&self, folder: &Path) -> Option<(&'static str, String)> {
        let secret = Secret::of(self.env.clone(), self.file.clone()).ok()?;
        Some(match secret.in_folder(folder) {
            Secret::Env(variable) => ("env", variable),
            Secret::File(path) => {
                // The settings of the API have no folder of their own.
                let path = std::path::absolute(&path).unwrap_or(path);
                ("file", path.display().to_string())
            }
        })
    }
}

impl File {
    /// Returns the allowances of the files for triggers of the API.
    #[must_use]
    pub fn allowances(&self) -> Allowances {
        let written = self.secret.iter().filter_map(|entry| {
            let name = entry.name.get_ref().to_string();
            let written = self.written(Table::Secret, &name)?.clone();
            Some((name, written))
        });
        Allowances {
            secrets: written.collect(),
            table: self.api_triggers.clone(),
        }
    }

    /// Reads the settings of a trigger of the API: secrets only by the names of `[[secret]]`
    /// entries that this trigger may use, and no programs.
    ///
    /// # Errors
    /// The settings are wrong, or only a file may have them.
    pub fn read_api_trigger(&self, name: &str, written: &Value) -> Result<Trigger, ConfigError> {
        let origin = Path::new(THE_API);
        let wrong = |message: String| ConfigError::of_file(origin, message);
        if self.api_triggers.is_none() {
            let message =
                "tagtrail.toml has no [api_triggers], so triggers of the API are not in force";
            return Err(wrong(message.to_owned()));
        }
        if written.get("name").and_then(Value::as_str) != Some(name) {
            return Err(wrong(format!("name is not {name:?}, as in the address")));
        }
        let mut settings = written.clone();
        if let Value::Object(keys) = &mut settings {
            for (key, value) in keys {
                // Names of images and labels are no settings.
                if key != "labels" {
                    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == key) {
                        return Err(wrong(format!("{key}: {why}")));
                    }
                    let inside = key == "images";
                    self.resolve(name, value, key, inside, DEEPEST)
                        .map_err(wrong)?;
                }
            }
        }
        let mut trigger = self.read_trigger(Door::Api, origin, &settings)?;
        // Other targets act with rights of Tagtrail, or their requests can't be confined.
        let kind = trigger.target().kind;
        if kind != KIND {
            return Err(wrong(format!(
                "target.{kind}: a trigger of the API has target.webhook; write others to a file"
            )));
        }
        trigger.raw = Arc::new(written.clone());
        if !trigger.spec().shown().complete {
            return Err(wrong(
                "texts in headers and set, and credentials and the part after ? of an address, may be secrets, which every reader of the API would see; name secrets of the file, { secret = \"…\" }".to_owned(),
            ));
        }
        Ok(trigger)
    }

    /// Puts the places of secrets in place of their names, and refuses settings that only a file
    /// may have.
    fn resolve(
        &self,
        trigger: &str,
        value: &mut Value,
        path: &str,
        names: bool,
        depth: usize,
    ) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("{path}: the settings are nested too deeply"));
        };
        match value {
            Value::Object(keys) => {
                if let Some(Value::String(secret)) = keys.get("secret")
                    && keys.keys().all(|key| key == "secret" || key == "prefix")
                {
                    let (key, place) = self.place(trigger, secret).ok_or_else(|| {
                        let secret = tagtrail_proto::clean_text(secret, 80);
                        format!("{path}: tagtrail.toml has no [[secret]] {secret:?} that the trigger {trigger} may use")
                    })?;
                    keys.remove("secret");
                    keys.insert(key.to_owned(), Value::from(place));
                    return Ok(());
                }
                for (key, value) in keys {
                    let shown = tagtrail_proto::clean_text(key, 80);
                    if let Some((_, why)) =
                        REFUSED.iter().find(|(refused, _)| refused == key && !names)
                    {
                        return Err(format!("{path}.{shown}: {why}"));
                    }
                    self.resolve(trigger, value, &format!("{path}.{shown}"), false, depth)?;
                }
                Ok(())
            }
            Value::Array(values) => {
                for value in values {
                    self.resolve(trigger, value, path, false, depth)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn place(&self, trigger: &str, secret: &str) -> Option<(&'static str, String)> {
        let mut entries = self.secret.iter();
        let entry = entries.find(|entry| entry.name.get_ref().as_ref() == secret)?;
        let may = entry.triggers.iter().any(|glob| glob.matches(trigger));
        entry.place(self.folder()).filter(|_| may)
    }

    /// Removes a trigger whose name another door has taken before. Returns the mistake, with the
    /// place of the entry.
    pub fn take_out(&mut self, name: &str, door: Door) -> Option<ConfigError> {
        let at = self
            .trigger
            .iter()
            .position(|one| one.name.get_ref().as_ref() == name)?;
        let trigger = self.trigger.remove(at);
        let message = match door {
            Door::Kubernetes => format!(
                "an annotated object has the trigger {name} already; give this one another name"
            ),
            _ => format!(
                "the API has a trigger {name} already; give this one another name, or remove the other by `tagtrail trigger delete {name}`"
            ),
        };
        Some(trigger.error_at(trigger.name.span().start, "trigger.name", message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Table;

    fn file(text: &str) -> File {
        File::parse(text, Path::new("conf/tagtrail.toml")).unwrap()
    }

    const SECRETS: &str = "[api_triggers]\nallow_addresses = [\"10.1.0.0/16\"]\n\
        [[secret]]\nname = \"hook\"\nfile = \"keys/hook\"\ntriggers = [\"shop-*\"]\n\
        [[secret]]\nname = \"variable\"\nenv = \"HOOK\"\ntriggers = [\"*\"]\n";

    fn spec(target: Value) -> Value {
        json!({ "name": "shop-web", "images": { "command": "registry.example.com/shop/web:latest" }, "target": target })
    }

    #[test]
    fn a_trigger_of_the_api_names_its_secrets() {
        let file = file(SECRETS);
        assert!(file.broken.is_empty(), "{:?}", file.broken);
        let written = spec(json!({ "webhook": {
            "url": "https://a.example/", "secret": { "secret": "hook" },
            "headers": { "Authorization": { "secret": "variable", "prefix": "Bearer " } } } }));
        let trigger = file.read_api_trigger("shop-web", &written).unwrap();
        assert_eq!(trigger.spec().hash(), crate::hash(&written));
        let settings = trigger.target().value;
        let path = settings["secret"]["file"].as_str().unwrap();
        assert!(
            path.starts_with('/') && path.ends_with("conf/keys/hook"),
            "{path}"
        );
        assert_eq!(
            settings["headers"]["Authorization"]["env"].as_str(),
            Some("HOOK")
        );
        let shown = trigger.spec().shown();
        assert_eq!(
            shown.settings["target"]["webhook"]["secret"],
            json!({ "secret": "hook" })
        );
    }

    #[test]
    fn a_file_alone_may_start_programs_and_read_places() {
        let file = file(SECRETS);
        let hook = |more: Value| {
            let mut target = json!({ "webhook": { "url": "https://a.example/" } });
            target["webhook"]
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            spec(target)
        };
        let mut verified = hook(json!({}));
        verified["verify"] = json!([{ "command": ["./x"] }]);
        let mut renamed = hook(json!({}));
        renamed["renamed_from"] = json!("pay");
        for (written, expected) in [
            (
                spec(json!({ "command": { "run": ["true"] } })),
                "target.command: starts a program",
            ),
            (
                spec(json!({ "kubernetes": { "cluster": "prod", "namespace": "shop" } })),
                "target.kubernetes: a trigger of the API has target.webhook",
            ),
            (
                hook(json!({ "secret": { "file": "/etc/shadow" } })),
                "secret.file: reads a file",
            ),
            (
                hook(json!({ "url": { "env": "X" } })),
                "url.env: reads a variable",
            ),
            (
                hook(json!({ "secret": [{ "secret": "hook" }, { "env": "X" }] })),
                "secret.env: reads a variable",
            ),
            (
                hook(json!({ "proxy": "http://p" })),
                "proxy: chooses the way",
            ),
            (
                hook(json!({ "secret": { "secret": "other" } })),
                "no [[secret]] \"other\"",
            ),
            (verified, "verify.command: starts a program"),
            (renamed, "renamed_from: takes over the history"),
            (
                hook(json!({ "headers": { "Authorization": "Bearer x" } })),
                "may be secrets",
            ),
            (
                hook(json!({ "url": "https://a.example/?token=x" })),
                "may be secrets",
            ),
            (json!({ "name": "other" }), "name is not \"shop-web\""),
        ] {
            let error = file
                .read_api_trigger("shop-web", &written)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("the API: ") && error.contains(expected),
                "{error}"
            );
        }
        // A secret of others is no secret of this trigger.
        let mut written = hook(json!({ "secret": { "secret": "hook" } }));
        written["name"] = "pay".into();
        let error = file
            .read_api_trigger("pay", &written)
            .unwrap_err()
            .to_string();
        assert!(error.contains("that the trigger pay may use"), "{error}");
        // Without the table nothing of the API is in force.
        let written = hook(json!({}));
        let none = File::default().read_api_trigger("shop-web", &written);
        assert!(none.unwrap_err().to_string().contains("[api_triggers]"));
    }

    #[test]
    fn a_wrong_secret_entry_is_named_with_its_line() {
        for (entry, expected) in [
            (
                "env = \"A\"\ntriggers = []",
                "secret.triggers: names no trigger",
            ),
            ("triggers = [\"*\"]", "secret: a secret is either"),
            (
                "env = \"A\"\nfile = \"b\"\ntriggers = [\"*\"]",
                "secret: a secret is either",
            ),
        ] {
            let file = file(&format!("[[secret]]\nname = \"s\"\n{entry}\n"));
            let broken: Vec<_> = file.broken_of(Table::Secret).collect();
            assert_eq!(broken.len(), 1);
            let text = broken[0].problem.to_string();
            assert!(
                text.starts_with("conf/tagtrail.toml:2: ") && text.contains(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn networks_have_their_addresses() {
        for (network, address, inside) in [
            ("10.1.0.0/16", "10.1.255.7", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "10.1.2.3", false),
        ] {
            let network = Network::try_from(network.to_owned()).unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
        for wrong in [
            "",
            "10.1",
            "10.1.0.0/33",
            "fd00::/129",
            "host",
            "10.0.0.0/-1",
        ] {
            assert!(Network::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
