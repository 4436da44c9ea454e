//! What has to be set in a registry, for people: `tagtrail doctor` prints it for a source, `docs/registries.md` has it for each kind.

use tagtrail_config::{ConfigError, File};
use tagtrail_proto::Registry;

use crate::config;
use crate::source::{ALL, Kind, Proof};

/// What the registry of a source needs, and what Tagtrail needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Its kind, by its first name.
    pub kind: &'static str,
    /// Where its events are posted, without the secret.
    pub url: String,
    /// The registry that its events are about. `None`: whichever they name.
    pub registry: Option<Registry>,
    /// Whether its events name the digests of tags. Where they don't, a `[[registry]]` has to say how they are asked for.
    pub has_digest: bool,
    /// Whether its senders show a token of an identity provider in place of a secret.
    pub wants_token: bool,
    /// The NATS subject on which its events are published as well.
    pub nats_subject: Option<String>,
    /// What to set in the registry. In place of the secret it names where that is kept.
    pub text: String,
}

/// What the registry of a source needs; `gateway` is the address at which the registry reaches the gateway. Secrets are not read.
///
/// # Errors
/// What is wrong with the source's entry, with its line and the cure.
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
        wants_token: tokens.is_some(),
        nats_subject: rules.options.nats.map(|nats| nats.subject),
        // It is one: a test parses them all.
        registry: rules.registry.or_else(|| {
            rules
                .kind
                .default_registry
                .and_then(|name| name.parse().ok())
        }),
    })
}

/// A kind of source, with what its registries need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSetup {
    /// Its name and its other names, as `kind` of a source.
    pub names: Vec<&'static str>,
    /// Keys of `[[source]]` that only this kind and few others have.
    pub settings: Vec<&'static str>,
    /// Whether the source must name its registry, because its events don't.
    pub needs_registry: bool,
    /// Whether its senders can sign their bodies with the secret.
    pub signs: bool,
    /// Whether its events name the digests of tags.
    pub has_digest: bool,
    /// What to set in the registry.
    pub text: String,
}

/// Every kind there is, with what its registries need where the source has this address and this secret.
#[must_use]
pub fn kinds(url: &str, secret: &str) -> Vec<KindSetup> {
    let each = |kind: &Kind| KindSetup {
        names: kind.names().collect(),
        settings: kind.settings().to_vec(),
        needs_registry: kind.needs_registry,
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
    fn every_kind_says_what_to_set_and_nothing_is_left_open() {
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
    fn the_secret_is_named_by_where_it_is_kept_and_never_read() {
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
        // The new one of two; there is no such file.
        let two = of(
            "[[source]]\nname = 'q'\nkind = 'quay'\nsecret = [{ env = 'OLD' }, { file = '/no/such/new' }]",
        );
        let line = "https://tagtrail.example.com/hooks/q/<the content of /no/such/new>\n";
        assert!(two.text.contains(line), "{}", two.text);
        assert!(!two.has_digest);
    }

    #[test]
    fn tokens_are_told_as_they_are_configured() {
        let source = "[[source]]\nname = 'g'\nkind = 'gar'\naudience = 'us'\nemail = 'push@p.iam.gserviceaccount.com'";
        let text = of(source).text;
        assert!(text.contains("--push-auth-token-audience us\n"), "{text}");
        assert!(
            text.contains("--push-auth-service-account push@p.iam.gserviceaccount.com "),
            "{text}"
        );
    }

    #[test]
    fn the_registry_is_the_configured_one_or_the_one_there_is() {
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
