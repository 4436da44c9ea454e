//! The settings to make in a registry, for `tagtrail doctor` and `docs/registries.md`.

use tagtrail_config::{ConfigError, File};
use tagtrail_proto::Registry;

use crate::config::{self, SourceRules};
use crate::source::{ALL, Kind, Proof};

/// The settings to make in the registry of a source, and their conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The first name of the kind.
    pub kind: &'static str,
    /// The address for events, without the secret.
    pub url: String,
    /// The registry of the events. `None`: the registry that each event names.
    pub registry: Option<Registry>,
    /// Whether the source says so, or is of a kind that is always about one registry.
    pub names_registry: bool,
    /// Whether events name the digests of tags. Otherwise the resolver needs a `[[registry]]`.
    pub has_digest: bool,
    /// Whether each push has a time of its own. Otherwise a `[[registry]]` keeps a repeated body
    /// from a rollback.
    pub has_time: bool,
    /// Whether senders show a token of an identity provider in place of a secret.
    pub wants_token: bool,
    /// The NATS subject on which events are published as well.
    pub nats_subject: Option<String>,
    /// The settings to make, with the place of the secret instead of the secret.
    pub text: String,
}

/// Returns the settings to make in the registry of a source. `gateway` is the address at which the
/// registry reaches the gateway. Secrets are not read.
///
/// # Errors
/// A mistake in the source's entry, with line and cure.
pub fn setup(
    file: &File,
    entry: &tagtrail_config::Source,
    gateway: &str,
) -> Result<Setup, ConfigError> {
    let rules = config::rules(file, entry)?;
    let url = format!("{}/hooks/{}", gateway.trim_end_matches('/'), rules.name);
    let newest = entry.secret.as_ref().and_then(|kept| kept.kept().last());
    let secret = newest.map_or("SECRET".to_owned(), ToString::to_string);
    let tokens = rules.options.tokens.as_ref();
    Ok(Setup {
        kind: rules.kind.name,
        text: rules.kind.setup_for(&url, &secret, tokens),
        url,
        has_digest: rules.kind.has_digest,
        has_time: rules.kind.has_time,
        wants_token: tokens.is_some(),
        nats_subject: rules.options.nats.map(|nats| nats.subject),
        names_registry: config::check_registry(file, entry).is_ok(),
        registry: rules.registry,
    })
}

/// Returns a warning if a repeated body of this source can roll back a tag: its pushes have a
/// digest and no time of their own, and the registry can't be asked.
pub(crate) fn replay_warning(file: &File, rules: &SourceRules) -> Option<String> {
    if rules.kind.has_time || !rules.kind.has_digest {
        return None;
    }
    let mut configured = file.registry.iter().map(|access| access.name.get_ref());
    let asked = match &rules.registry {
        Some(registry) => configured.any(|name| name == registry),
        None => configured.next().is_some(),
    };
    let name = rules.registry.as_ref();
    let name = name.map_or("its registry", AsRef::as_ref);
    (!asked).then(|| {
        format!(
            "warning: source {}: pushes of kind {} need not have a time of their own, so a body that is sent again rolls its tag back to the older digest; add a [[registry]] for {name}, which is then asked first",
            rules.name, rules.kind.name
        )
    })
}

/// A kind of source, with the settings to make in registries of the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSetup {
    /// The name and the aliases, as `kind` of a `[[source]]`.
    pub names: Vec<&'static str>,
    /// Keys of `[[source]]` that belong to the kind.
    pub settings: Vec<&'static str>,
    /// The events name no registry, so the source must.
    pub needs_registry: bool,
    /// The registry of the events, unless the source names another.
    pub default_registry: Option<&'static str>,
    /// Senders can sign bodies with the secret.
    pub signs: bool,
    /// Events name the digests of tags.
    pub has_digest: bool,
    /// The settings to make in the registry.
    pub text: String,
}

/// Returns all kinds, with the settings to make for a source with this address and this secret.
#[must_use]
pub fn kinds(url: &str, secret: &str) -> Vec<KindSetup> {
    let each = |kind: &Kind| KindSetup {
        names: kind.names().collect(),
        settings: kind.settings().to_vec(),
        needs_registry: kind.needs_registry,
        default_registry: kind.default_registry,
        signs: matches!(kind.proof, Proof::Signature(_)),
        has_digest: kind.has_digest,
        text: kind.setup_for(url, secret, None),
    };
    ALL.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::parse(text, "tagtrail.toml".as_ref()).unwrap()
    }

    fn of(text: &str) -> Setup {
        let file = file(text);
        setup(&file, &file.source[0], "https://tagtrail.example.com/").unwrap()
    }

    #[test]
    fn the_setup_text_of_every_kind_is_complete() {
        for kind in kinds("https://t.example.com/hooks/a", "S3CRET") {
            let text = &kind.text;
            assert!(text.contains("https://t.example.com/hooks/a"), "{text}");
            assert!(
                text.contains("S3CRET") || kind.names == ["gar"],
                "{:?}",
                kind.names
            );
            for open in ["{url}", "{secret}", "{audience}", "{email}"] {
                assert!(!text.contains(open), "{open} in {text}");
            }
        }
        let defaults = ALL.iter().filter_map(|kind| kind.default_registry);
        assert!(
            defaults
                .map(str::parse::<Registry>)
                .all(|name| name.is_ok())
        );
    }

    #[test]
    fn the_setup_text_names_the_place_of_the_secret_without_reading_it() {
        let env =
            of("[[source]]\nname = 'main'\nkind = 'gitlab'\nsecret = { env = 'HOOK_SECRET' }");
        assert!(
            env.text
                .contains("      url: https://tagtrail.example.com/hooks/main\n")
        );
        assert!(
            env.text
                .contains(r#"Authorization: ["Bearer $HOOK_SECRET"]"#)
        );
        assert_eq!((env.kind, env.registry), ("distribution", None));
        // The newer of the two secrets is named. No such file exists.
        let two = of(
            "[[source]]\nname = 'q'\nkind = 'quay'\nsecret = [{ env = 'OLD' }, { file = '/no/such/new' }]",
        );
        let line = "https://tagtrail.example.com/hooks/q/<the content of /no/such/new>\n";
        assert!(two.text.contains(line), "{}", two.text);
        assert!(!two.has_digest);
    }

    #[test]
    fn a_source_that_a_repeated_body_can_roll_back_is_warned_of() {
        let warning = |kind: &str, more: &str| {
            let file = file(&format!(
                "[[source]]\nname = 'main'\nkind = '{kind}'\nregistry = 'r.example.com'\nsecret = {{ env = 'S' }}\n{more}"
            ));
            let rules = config::rules(&file, &file.source[0]).unwrap();
            replay_warning(&file, &rules)
        };
        for kind in ["artifactory", "aliyun", "generic"] {
            let text = warning(kind, "").unwrap();
            assert!(
                text.contains("add a [[registry]] for r.example.com"),
                "{text}"
            );
            let asked = "[[registry]]\nname = 'r.example.com'\nurl = 'https://r.example.com'";
            assert_eq!(warning(kind, asked), None);
        }
        // The time is in the body, or the registry is asked for the digest in any case.
        for kind in ["distribution", "ghcr", "quay"] {
            assert_eq!(warning(kind, ""), None);
        }
    }

    #[test]
    fn the_setup_text_has_the_configured_token_claims() {
        let source = "[[source]]\nname = 'g'\nkind = 'gar'\naudience = 'us'\nemail = 'push@p.iam.gserviceaccount.com'";
        let text = of(source).text;
        assert!(text.contains("--push-auth-token-audience us\n"), "{text}");
        assert!(
            text.contains("--push-auth-service-account push@p.iam.gserviceaccount.com "),
            "{text}"
        );
    }

    #[test]
    fn the_registry_is_the_configured_one_or_the_default_of_the_kind() {
        let docker = "[[source]]\nname = 'd'\nkind = 'dockerhub'\nsecret = { env = 'S' }";
        let named = |text: &str| of(text).registry.map(|name| name.to_string());
        assert_eq!(named(docker).as_deref(), Some("docker.io"));
        let other = format!("{docker}\nregistry = 'mirror.example.com'");
        assert_eq!(named(&other).as_deref(), Some("mirror.example.com"));
        let wrong = file("[[source]]\nname = 'd'\nkind = 'nexus'\nsecret = { env = 'S' }");
        let error = setup(&wrong, &wrong.source[0], "http://x").unwrap_err();
        assert!(error.to_string().contains("source.registry"), "{error}");
    }
}
