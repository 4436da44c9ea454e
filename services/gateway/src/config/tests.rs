use std::path::Path;

use super::*;

const SECRET: &str = concat!(
    "secret = { file = \"",
    env!("CARGO_MANIFEST_DIR"),
    "/Cargo.toml\" }"
);

fn read(text: &str) -> Result<HashMap<String, Arc<Source>>, ConfigError> {
    let text = text.replace("SECRET", SECRET);
    let (sources, broken) = sources(
        &File::parse(&text, Path::new("tagtrail.toml")).unwrap(),
        None,
    );
    match broken.into_iter().next() {
        Some(broken) => Err(broken.problem),
        None => Ok(sources.good),
    }
}

#[test]
fn a_broken_source_stops_no_other() {
    let good = "[[source]]\nname = 'good'\nkind = 'gitlab'\nSECRET\n";
    let unset =
        "[[source]]\nname = 'unset'\nkind = 'gitlab'\nsecret = { env = 'TAGTRAIL_NEVER_SET' }\n";
    let unknown = "[[source]]\nname = 'unknown'\nkind = 'gitlap'\nSECRET\n";
    let wrong = "[[source]]\nname = 'wrong'\nkind = 7\nSECRET\n";
    // The first of two entries of one name is in force.
    let text = format!("{good}{unset}{unknown}{wrong}{good}").replace("SECRET", SECRET);
    let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
    let (sources, broken) = sources(&file, None);
    assert_eq!(sources.good.keys().collect::<Vec<_>>(), ["good"]);
    let names: Vec<&str> = sources.broken.iter().map(String::as_str).collect();
    assert_eq!(names, ["unknown", "unset", "wrong"]);
    assert_eq!(broken.len(), 4);
    assert_eq!(check(&file).mistakes.len(), 4 + 1, "the check is stricter");
}

#[test]
fn a_source_may_report_the_repositories_that_match_its_patterns() {
    let sources =
        read("[[source]]\nname = 'a'\nkind = 'gitlab'\nSECRET\nrepositories = ['shop/**', 'base']")
            .unwrap();
    let registry = "registry.example.com".parse().unwrap();
    let may_report = |path: &str| {
        sources["a"]
            .rules
            .may_report(&registry, &path.parse().unwrap())
    };
    assert_eq!(sources["a"].rules.kind.name, "distribution");
    assert!(may_report("shop/web") && may_report("base"));
    assert!(!may_report("shop") && !may_report("base/web") && !may_report("other"));
}

#[test]
fn a_source_without_patterns_may_report_every_repository() {
    let sources = read("[[source]]\nname = 'a'\nkind = 'distribution'\nSECRET").unwrap();
    let registry = "registry.example.com".parse().unwrap();
    let repository = "any/thing".parse().unwrap();
    assert!(sources["a"].rules.may_report(&registry, &repository));
}

#[test]
fn a_kind_refuses_the_settings_of_other_kinds_and_wrong_values_of_its_own() {
    let all = ALL.iter().flat_map(Kind::settings);
    for (kind, setting) in ALL
        .iter()
        .flat_map(|kind| all.clone().map(move |key| (kind, *key)))
    {
        let error = read(&format!(
            "[[source]]\nname = 'a'\nkind = '{}'\nregistry = 'r.example.com'\nSECRET\n{setting} = 7",
            kind.name
        ));
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("tagtrail.toml:3: source.{setting}: ")),
            "{error}"
        );
        let unknown = format!("kind {:?} has no such setting", kind.name);
        assert_eq!(
            error.contains(&unknown),
            !kind.settings().contains(&setting),
            "{error}"
        );
        // A kind must also parse each key of its list.
        assert!(!error.contains("unknown field"), "{error}");
    }
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_by_the_check_alone() {
    let folder = tempfile::tempdir().unwrap();
    let of = |secrets: &[&str]| {
        let place = |(index, secret): (usize, &&str)| {
            let path = folder.path().join(index.to_string());
            std::fs::write(&path, secret).unwrap();
            format!("{{ file = {path:?} }}")
        };
        let places: Vec<String> = secrets.iter().enumerate().map(place).collect();
        let text = format!(
            "[[source]]\nname = 'a'\nkind = 'dockerhub'\nsecret = [{}]",
            places.join(", ")
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        assert_eq!(sources(&file, None).1, []);
        match check(&file).mistakes.first() {
            Some(mistake) => Err(mistake.to_string()),
            None => Ok(()),
        }
    };
    let short = "tagtrail.toml:2: source.secret: is shorter than 16 characters, and can be guessed; make one with `openssl rand -hex 32`";
    let (long, shorter) = ("0123456789abcdef", "0123456789abcde\n");
    assert_eq!(of(&[long]), Ok(()));
    assert_eq!(of(&[long, long]), Ok(()));
    for secrets in [
        &[shorter][..],
        &["hook-secret"],
        &["x", long],
        &[long, "hush"],
    ] {
        assert_eq!(of(secrets), Err(short.to_owned()), "{secrets:?}");
    }
}

#[test]
fn mistakes_are_reported_with_their_line_and_a_cure() {
    let message = |text: &str| read(text).unwrap_err().to_string();
    let kinds: Vec<&str> = ALL.iter().flat_map(Kind::names).collect();
    assert_eq!(
        message("[[source]]\nname = 'a'\nkind = 'harbour'\nSECRET"),
        format!(
            "tagtrail.toml:3: source.kind: \"harbour\" is not a kind of source; the kinds are: {}; did you mean \"harbor\"?",
            kinds.join(", ")
        )
    );
    assert_eq!(
        message("[[source]]\nname = 'a'\nkind = 'generic'\nSECRET"),
        "tagtrail.toml:3: source.registry: events of kind \"generic\" do not name their registry; add registry = \"registry.example.com\""
    );
    assert_eq!(
        message("[[source]]\nname = 'a'\nkind = 'gitlab'"),
        "tagtrail.toml:2: source.secret: is missing; add secret = { env = \"VARIABLE\" } or { file = \"path\" }"
    );
    assert!(
        message("[[source]]\nname = 'a'\nkind = 'gar'")
            .ends_with("{ file = \"path\" }, or audience = \"…\" and email = \"…\"")
    );
    for mixed in [
        "audience = 'x'",
        "email = 'x'",
        "audience = 'x'\nemail = 'x'\nSECRET",
    ] {
        assert!(
            message(&format!("[[source]]\nname = 'a'\nkind = 'gar'\n{mixed}"))
                .starts_with("tagtrail.toml:3: source.audience: tokens need `audience` and `email`, and no `secret`")
        );
    }
    assert_eq!(
        message("[[source]]\nname = 'a'\nkind = 'gitlab'\nSECRET\naudience = 'x'"),
        "tagtrail.toml:3: source.audience: kind \"distribution\" has no such setting, expected one of `name`, `kind`, `registry`, `secret`, `header`, `repositories`, `pulls`; remove the key, or correct the name"
    );
    let unset =
        message("[[source]]\nname = 'a'\nkind = 'gitlab'\nsecret = { env = 'TAGTRAIL_NEVER_SET' }");
    assert!(
        unset.starts_with("tagtrail.toml:2: source.secret: ")
            && unset.contains("TAGTRAIL_NEVER_SET"),
        "{unset}"
    );
}

#[tokio::test]
async fn a_changed_secret_of_a_source_counts_without_a_restart() {
    use axum::http::HeaderMap;
    use axum::http::header::AUTHORIZATION;
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("hook"), text).unwrap();
    write("the-old-secret-of-a-source");
    let text = "[[source]]\nname = 'a'\nkind = 'gitea'\nregistry = 'r.example.com'\nsecret = { file = 'hook' }";
    let file = File::parse(text, &folder.path().join("tagtrail.toml")).unwrap();
    let sources = sources(&file, None).0.good;
    let admits = async |secret: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {secret}").parse().unwrap());
        let admitted = sources["a"].credentials.admit(&headers, None).await;
        admitted.is_ok()
    };
    assert!(admits("the-old-secret-of-a-source").await);
    write("the-new-secret-of-a-source");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert!(admits("the-new-secret-of-a-source").await);
    assert!(!admits("the-old-secret-of-a-source").await);
    // Empty while it is written.
    write("");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert!(admits("the-new-secret-of-a-source").await && !admits("").await);
}
