//! The settings of a trigger outside of a file, without a target.

use std::path::Path;

use crate::document::{ConfigError, Document};
use crate::entries::Entries;
use crate::{Names, Trigger};

impl Trigger {
    /// Reads the settings of one trigger, as the table of its `[[trigger]]` has them, by the names
    /// of the registries. A target is passed over, and a name may be missing: this trigger is
    /// evaluated, and never rolled out.
    ///
    /// # Errors
    /// [`ConfigError`] for settings that can't be used.
    pub fn of_settings(mut settings: toml::Table, names: &Names) -> Result<Trigger, ConfigError> {
        let path = Path::new("spec");
        let mut target = toml::Table::new();
        target.insert("none".to_owned(), toml::Value::Table(toml::Table::new()));
        settings.insert("target".to_owned(), toml::Value::Table(target));
        let name = toml::Value::String("test".to_owned());
        settings.entry("name").or_insert(name);
        let entries = toml::Value::Array(vec![toml::Value::Table(settings)]);
        let text = toml::to_string(&toml::Table::from_iter([("trigger".to_owned(), entries)]));
        let text = text.map_err(|error| ConfigError::of_file(path, error.to_string()))?;
        let mut entries = Entries::read_triggers(Document::new(path, &text))?;
        if let Some(broken) = entries.broken.pop() {
            return Err(broken.problem);
        }
        let Some(mut trigger) = entries.trigger.pop() else {
            return Err(ConfigError::of_file(path, "has no trigger"));
        };
        match trigger.check(names) {
            Ok(()) => Ok(trigger),
            Err(mistake) => Err(trigger.error_at(mistake.at, &mistake.key, mistake.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trigger, String> {
        let settings = toml::from_str(text).unwrap();
        Trigger::of_settings(settings, &Names::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_without_name_and_target() {
        let text = "images.web = \"r.example.com/shop/web:latest\"\nsettle = \"30s\"\n\
                    target.webhook = { url = \"https://x.example.com\", secret = { file = \"/etc/shadow\" } }";
        let trigger = read(text).unwrap();
        assert_eq!(trigger.name.get_ref().as_ref(), "test");
        assert_eq!((trigger.images.len(), trigger.target().kind), (1, "none"));
        assert_eq!(trigger.settle.unwrap().as_secs(), 30);
    }

    #[test]
    fn mistakes_name_the_setting() {
        for (text, mistake) in [
            ("settle = \"5s\"", "images"),
            ("images = {}", "watches nothing"),
            (
                "images.web = \"r.example.com/shop/web:latest\"\nsetle = \"5s\"",
                "setle",
            ),
            (
                "images.api = { repository = \"r.example.com/shop/api\", semver = \"newest\" }",
                "trigger.images.api.semver",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.starts_with("spec") && error.contains(mistake),
                "{error}"
            );
        }
    }
}
