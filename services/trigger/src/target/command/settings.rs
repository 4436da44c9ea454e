//! The settings below `target.command`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tagtrail_config::{File, Fresh, Secret, Text, Trigger};

use super::super::contract::settings;

/// The variables of the service's environment that every program receives, besides `LC_*`.
const USUAL: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];
/// Variables with the credentials of Tagtrail's own processes.
const CREDENTIALS: [&str; 3] = ["DATABASE_URL", "NATS_URL", "TAGTRAIL_TOKEN"];
/// Beginnings of the names of variables that Tagtrail sets.
const OURS: [&str; 3] = ["TAGTRAIL_", "TRACEPARENT", "TRACESTATE"];
/// Most bytes of a value in `set`: the system refuses longer variables at about four times this.
const LONGEST: usize = 32 * 1024;

/// The settings as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The program and its arguments, started without a shell.
    run: Run,
    /// Seconds after which the program is ended.
    #[serde(default = "ten_minutes")]
    timeout_seconds: u64,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(default = "ten")]
    grace_seconds: u64,
    /// Names of variables that the program receives from the service's own environment. `HELM_*`
    /// is every variable that begins with `HELM_`, except those that hold secrets.
    #[serde(default)]
    environment: Vec<String>,
    /// Further variables.
    #[serde(default)]
    set: BTreeMap<String, Text>,
    /// The user that runs the program, if the service runs as root.
    pub(super) user: Option<String>,
    /// The exit codes by which the program ends the relation.
    #[serde(default)]
    pub(super) final_exit_codes: Vec<u8>,
    /// The fate of processes that the program leaves behind after a success.
    #[serde(default)]
    pub(super) leftover: Leftover,
}

/// The program and its arguments as written. A single text is a mistake, which the error explains.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "run is a list of the program and its arguments, such as run = [\"./deploy.sh\"]"
)]
enum Run {
    Words(Vec<String>),
    Line(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Leftover {
    /// They stay.
    #[default]
    Keep,
    /// They are ended.
    End,
}

fn ten_minutes() -> u64 {
    600
}

fn ten() -> u64 {
    10
}

impl Settings {
    /// Reads the settings. Secrets are not read.
    pub(super) fn parse(value: &toml::Value, trigger: &Trigger) -> Result<Settings, String> {
        let mut written: Settings = settings(value)?;
        let words = written.run()?;
        if words.is_empty() {
            return Err(
                "run is empty; give the program and its arguments, such as run = [\"./deploy.sh\"]"
                    .to_owned(),
            );
        }
        if words.iter().any(|word| word.contains('\0')) || words[0].is_empty() {
            return Err("run has an empty program or a NUL character".to_owned());
        }
        if !(1..=24 * 3600).contains(&written.timeout_seconds) {
            return Err("timeout_seconds must be 1 to 86400".to_owned());
        }
        if written.grace_seconds > 600 {
            return Err("grace_seconds must be 0 to 600".to_owned());
        }
        if written.final_exit_codes.contains(&0) {
            return Err("final_exit_codes: 0 is the success; leave it out".to_owned());
        }
        if let Some(wrong) = written.environment.iter().find(|name| !is_pattern(name)) {
            return Err(format!(
                "environment: {wrong:?} is no name of a variable; write names such as \"KUBECONFIG\", or \"HELM_*\" for all that begin with HELM_"
            ));
        }
        for name in written.set.keys() {
            if !is_variable(name) {
                return Err(format!(
                    "set: {name:?} is no name of a variable; write set.STAGE = \"prod\""
                ));
            }
            if OURS.iter().any(|ours| name.starts_with(ours)) {
                return Err(format!(
                    "set.{name}: Tagtrail sets this variable; remove it"
                ));
            }
        }
        let set = std::mem::take(&mut written.set).into_iter();
        written.set = set
            .map(|(name, value)| (name, value.in_folder(trigger.folder())))
            .collect();
        Ok(written)
    }

    /// Returns the program and its arguments.
    pub(super) fn run(&self) -> Result<&[String], String> {
        match &self.run {
            Run::Words(words) => Ok(words),
            Run::Line(line) => {
                let words: Vec<&str> = line.split_whitespace().collect();
                Err(format!(
                    "run is a list of the program and its arguments; write run = {words:?}, or for a shell, run = [\"sh\", \"-c\", {line:?}]"
                ))
            }
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// Returns the rule that says which variables of the service's environment are passed on.
    pub(super) fn passing(&self, file: &File) -> Passing {
        Passing {
            listed: self.environment.clone(),
            secrets: credentials(file),
        }
    }

    /// Returns the places of the secrets in `set`.
    pub(super) fn places(&self) -> impl Iterator<Item = &Secret> {
        self.set.values().filter_map(Text::secret)
    }
}

/// Returns the variables of the service's environment with secrets: of the file, and of Tagtrail's
/// own processes.
pub(crate) fn credentials(file: &File) -> BTreeSet<String> {
    let mut secrets = file.secret_variables();
    secrets.extend(CREDENTIALS.map(str::to_owned));
    secrets
}

/// Returns the name of the variable of an image.
pub(super) fn variable_of(image: &str) -> String {
    format!(
        "TAGTRAIL_IMAGE_{}",
        image.to_ascii_uppercase().replace('-', "_")
    )
}

/// Refuses images whose variables would have the same name.
pub(super) fn check_images(trigger: &Trigger) -> Result<(), String> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let images = trigger.all_images();
    for image in images.keys().map(String::as_str) {
        let variable = variable_of(image);
        if let Some(other) = names.insert(variable.clone(), image) {
            return Err(format!(
                "the images {other} and {image} would have the same variable {variable}; rename one of them"
            ));
        }
    }
    Ok(())
}

/// Returns whether this is the name of a variable.
fn is_variable(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(allowed)
}

/// Returns whether this is the name of a variable, or the beginning of names followed by `*`.
fn is_pattern(name: &str) -> bool {
    is_variable(name.strip_suffix('*').unwrap_or(name))
}

/// The variables of the service's environment that the program receives.
#[derive(Debug)]
pub(super) struct Passing {
    listed: Vec<String>,
    /// Variables that only their whole name in `environment` passes on.
    secrets: BTreeSet<String>,
}

impl Passing {
    /// Returns whether the program receives this variable.
    pub(super) fn passes(&self, variable: &str) -> bool {
        if self.is_secret(variable) {
            return self.listed.iter().any(|wanted| wanted == variable);
        }
        let listed = |wanted: &String| match wanted.strip_suffix('*') {
            Some(start) => variable.starts_with(start),
            None => wanted == variable,
        };
        USUAL.contains(&variable) || variable.starts_with("LC_") || self.listed.iter().any(listed)
    }

    /// Returns whether the variable holds a secret.
    pub(super) fn is_secret(&self, variable: &str) -> bool {
        self.secrets.contains(variable)
    }
}

/// The variables in `set`, with their values. Without `Debug`: nothing may log them.
pub(super) struct Values {
    pub(super) values: BTreeMap<String, SecretString>,
    /// The secret ones of the values.
    hidden: Vec<SecretString>,
}

impl Values {
    /// Reads all values, again when a secret changes.
    pub(super) fn fresh(
        settings: &Arc<Settings>,
        trigger: &Trigger,
    ) -> Result<Fresh<Values>, String> {
        let of = format!("target.command of trigger {}", trigger.name.get_ref());
        let places = settings.places().cloned().collect();
        let settings = Arc::clone(settings);
        Fresh::new(of, places, move || Values::read(&settings))
    }

    fn read(settings: &Settings) -> Result<Values, String> {
        let (mut values, mut hidden) = (BTreeMap::new(), Vec::new());
        for (name, text) in &settings.set {
            let value = text
                .read()
                .map_err(|error| format!("set.{name}: {error}"))?;
            let shown = value.expose_secret();
            if shown.contains('\0') || shown.len() > LONGEST {
                return Err(format!(
                    "set.{name}: a variable holds 32 KiB at most, without NUL characters; set the path of a file instead"
                ));
            }
            if let Text::Secret { prefix, .. } = text {
                let secret = shown.strip_prefix(prefix.as_str()).unwrap_or(shown);
                hidden.push(secret.to_owned().into());
            }
            values.insert(name.clone(), value);
        }
        Ok(Values { values, hidden })
    }

    /// Returns the texts that nothing shows.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(|secret| secret.expose_secret())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::target::{Clusters, configure};

    const SECRETS: &str = r#"
[[source]]
name = "main"
kind = "generic"
registry = "registry.example.com"
secret = [{ env = "HELM_HOOK_SECRET" }, { env = "OTHER_HOOK_SECRET" }]
[[trigger]]
name = "hook"
images.web = "registry.example.com/shop/web"
target.webhook = { url = "https://deploy.example.com", secret = { env = "HELM_SIGNING_SECRET" } }
[[token]]
name = "ops"
role = "operate"
secret = { env = "LC_TOKEN" }
"#;

    fn refused(settings: &str) -> String {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n[trigger.target.command]\n{settings}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let error = configure(&file, &Clusters::default(), &file.trigger[0]).err();
        let error = error.map_or_else(String::new, |error| error.to_string());
        let place = "tagtrail.toml:4: trigger.target.command: ";
        error.strip_prefix(place).unwrap_or(&error).to_owned()
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_cure() {
        for (settings, expected) in [
            ("", ""),
            ("timeout_seconds = 86400\ngrace_seconds = 0", ""),
            ("timeout_seconds = 0", "timeout_seconds must be 1 to 86400"),
            (
                "timeout_seconds = 86401",
                "timeout_seconds must be 1 to 86400",
            ),
            ("grace_seconds = 601", "grace_seconds must be 0 to 600"),
            (
                "final_exit_codes = [0]",
                "final_exit_codes: 0 is the success; leave it out",
            ),
            (
                "leftover = \"kill\"",
                "leftover: unknown variant `kill`, expected `keep` or `end`",
            ),
            (
                "set.STAGE = 7",
                "set.STAGE: write a text, or { env = \"VARIABLE\" } or { file = \"path\" }, with prefix = \"…\" if a text precedes the secret",
            ),
            (
                "set.\"A=B\" = \"x\"",
                "set: \"A=B\" is no name of a variable; write set.STAGE = \"prod\"",
            ),
            (
                "set.TAGTRAIL_IMAGE_WEB = \"x\"",
                "set.TAGTRAIL_IMAGE_WEB: Tagtrail sets this variable; remove it",
            ),
            (
                "set.A = \"a\\u0000b\"",
                "set.A: a variable holds 32 KiB at most, without NUL characters; set the path of a file instead",
            ),
            (
                "set.A = { env = \"TAGTRAIL_SURELY_NOT_SET\" }",
                "set.A: the environment variable TAGTRAIL_SURELY_NOT_SET is not set; set it, or name another one",
            ),
        ] {
            let settings = format!("run = [\"true\"]\n{settings}");
            assert_eq!(refused(&settings), expected, "{settings}");
        }
    }

    #[test]
    fn images_with_the_same_variable_are_refused_with_both_names() {
        let text = "[[trigger]]\nname = \"shop\"\nimages.web-app = \"registry.example.com/shop/web\"\nimages.web_app = \"registry.example.com/shop/app\"\ntarget.command = { run = [\"true\"] }\n";
        let file = File::parse(text, Path::new("tagtrail.toml")).unwrap();
        let error = configure(&file, &Clusters::default(), &file.trigger[0])
            .err()
            .unwrap()
            .to_string();
        assert_eq!(
            error,
            "tagtrail.toml:5: trigger.target.command: the images web-app and web_app would have the same variable TAGTRAIL_IMAGE_WEB_APP; rename one of them"
        );
    }

    #[test]
    fn the_page_names_every_key_and_its_examples_are_valid() {
        let page = include_str!("../../../../../docs/command.md");
        let unknown = refused("no_such_key = 1");
        let (_, keys) = unknown.split_once("expected one of ").unwrap();
        for key in keys.split('`').skip(1).step_by(2) {
            assert!(page.contains(&format!("| `{key}` |")), "{key}");
        }
        let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
        assert!(!examples.is_empty());
        for example in examples {
            let (_, settings) = example
                .split("```")
                .next()
                .unwrap()
                .split_once('\n')
                .unwrap();
            assert_eq!(refused(settings), "", "{example}");
        }
    }

    fn passing(environment: &str) -> Passing {
        let file = File::parse(SECRETS, Path::new("tagtrail.toml")).unwrap();
        let value = format!("run = [\"true\"]\nenvironment = {environment}");
        let settings = Settings::parse(&toml::from_str(&value).unwrap(), &file.trigger[0])
            .ok()
            .unwrap();
        settings.passing(&file)
    }

    #[test]
    fn a_program_gets_the_usual_variables_and_those_that_its_trigger_names() {
        let usual = passing("[]");
        for name in ["PATH", "HOME", "LC_ALL", "TZ"] {
            assert!(usual.passes(name), "{name}");
        }
        for name in [
            "DATABASE_URL",
            "HELM_HOOK_SECRET",
            "KUBECONFIG",
            "LC_TOKEN",
            "TAGTRAIL_TOKEN",
            "PATHS",
        ] {
            assert!(!usual.passes(name), "{name}");
        }
        let more = passing(r#"["KUBECONFIG", "HELM_*", "OTHER_HOOK_SECRET", "DATABASE_*"]"#);
        for name in ["KUBECONFIG", "HELM_CACHE_HOME", "OTHER_HOOK_SECRET"] {
            assert!(more.passes(name), "{name}");
        }
        // A pattern passes on no secret; only the whole name does.
        for name in [
            "HELM_HOOK_SECRET",
            "HELM_SIGNING_SECRET",
            "DATABASE_URL",
            "KUBECONFIG_2",
        ] {
            assert!(!more.passes(name), "{name}");
        }
        assert!(more.is_secret("OTHER_HOOK_SECRET") && !more.is_secret("KUBECONFIG"));
    }
}
