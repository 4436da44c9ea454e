use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::*;

fn refused(text: &str) -> String {
    match File::parse(text, Path::new("tagtrail.toml")) {
        Ok(file) => file.broken[0].problem.to_string(),
        Err(error) => error.to_string(),
    }
}

const SOURCE: &str =
    "[[source]]\nname = \"main\"\nkind = \"distribution\"\nsecret = { env = \"S\" }\n";
const REGISTRY: &str =
    "[[registry]]\nname = \"registry.example.com\"\nurl = \"https://registry.example.com\"\n";
const TOKEN: &str = "[[token]]\nname = \"ui\"\nsecret = { env = \"T\" }\nrole = \"read\"\n";
const TRIGGER: &str = "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\ntarget.command = { run = [\"./deploy.sh\"] }\n";

#[test]
fn an_empty_file_is_a_file_without_sources() {
    let file = File::parse("", Path::new("tagtrail.toml")).unwrap();
    assert!(file.source.is_empty() && file.trigger.is_empty());
}

#[test]
fn a_target_is_known_by_its_kind_and_line() {
    let file = File::parse(TRIGGER, Path::new("conf/tagtrail.toml")).unwrap();
    let target = file.trigger[0].target();
    assert_eq!(target.kind, "command");
    assert_eq!(
        file.trigger[0]
            .error_at(target.at, "trigger.target.command", "no")
            .to_string(),
        "conf/tagtrail.toml:4: trigger.target.command: no"
    );
    assert_eq!(file.folder(), Path::new("conf"));
}

#[test]
fn every_mistake_is_named_with_file_line_key_and_cure() {
    let cases = [
        "[[source",
        "[[sauce]]\nname = \"main\"",
        "[source]\nname = \"main\"",
        &TRIGGER.replace("[[trigger]]", "[trigger]"),
        &format!("{TRIGGER}settle = 30"),
        &format!("{REGISTRY}usrname = \"ci\""),
        &TRIGGER
            .replace("images.web =", "images = [")
            .replace("/web\"", "/web\"]"),
        "[[source]]\nname = \"main\"",
        &SOURCE.replace("\"main\"", "\"Main!\""),
        &SOURCE.replace("{ env = \"S\" }", "\"S\""),
        &SOURCE.replace("{ env = \"S\" }", "{ env = \"S\", file = \"F\" }"),
        &SOURCE.replace(
            "{ env = \"S\" }",
            "[{ env = \"A\" }, { env = \"B\" }, { env = \"C\" }]",
        ),
        &format!("{SOURCE}registry = \"nodots\""),
        &format!("{SOURCE}repositories = [\"Shop/**\"]"),
        &format!("{SOURCE}header = \"X Secret\""),
        &format!("{SOURCE}{SOURCE}"),
        &format!("{TRIGGER}{TRIGGER}"),
        &TRIGGER.replace("registry.example.com/shop/web", "shop/web"),
        &TRIGGER.replace("images.web", "images.Web"),
        &TRIGGER.replace(
            "images.web = \"registry.example.com/shop/web\"",
            "images = {}",
        ),
        &TRIGGER.replace("target.command = { run = [\"./deploy.sh\"] }", ""),
        &format!("{TRIGGER}target.webhook = {{}}"),
        &format!("{TRIGGER}settle = \"soon\""),
        "[[registry]]\nname = \"registry.example.com\"\nurl = \"registry.example.com\"",
        &format!("{REGISTRY}username = \"ci\""),
        &format!("{REGISTRY}realm = \"auth.example.com\""),
        &format!("{REGISTRY}{REGISTRY}"),
        &format!("{TOKEN}{TOKEN}"),
        &TOKEN.replace("read", "write"),
        &format!("{TOKEN}triggers = [\"Team A\"]"),
        &format!("{TOKEN}triggers = []"),
    ];
    let messages: Vec<String> = cases.iter().map(|text| refused(text)).collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    tagtrail.toml:1: unclosed array table, expected `]]`; it is not TOML
    tagtrail.toml:1: sauce: unknown field `sauce`, expected one of `source`, `registry`, `trigger`, `token`, `notify`, `cluster`, `secret`, `api_triggers`, `pages`, `triggers`; did you mean `source`?
    tagtrail.toml:1: source: invalid type: map, expected a sequence; write [[source]], with two brackets on each side: there may be several
    tagtrail.toml:1: trigger: invalid type: map, expected a sequence; write [[trigger]], with two brackets on each side: there may be several
    tagtrail.toml:5: trigger[0].settle: 30 has no unit; write it with ms, s, m or h, such as "30s"
    tagtrail.toml:4: registry[0].usrname: unknown field `usrname`, expected one of `name`, `aliases`, `url`, `username`, `password`, `realm`, `ca`, `proxy`, `reconcile`, `watch_triggers`, `watch`; did you mean `username`?
    tagtrail.toml:3: trigger[0].images: invalid type: sequence, expected a map; write a line for each image: images.web = "registry.example.com/shop/web:latest"
    tagtrail.toml:1: source[0]: missing field `kind`; add it
    tagtrail.toml:2: source[0].name: the name "Main!" is not valid: it must be 1 to 63 of a-z 0-9 -, not starting with a hyphen
    tagtrail.toml:4: source[0].secret: a secret is { env = "VARIABLE" } or { file = "path" }, or a list of two of them
    tagtrail.toml:4: source[0].secret: a secret is { env = "VARIABLE" } or { file = "path" }, or a list of two of them
    tagtrail.toml:4: source[0].secret: a list of secrets holds one or two, the old and the new
    tagtrail.toml:5: source[0].registry: the registry "nodots" is not valid: it needs a dot or a port (or to be localhost), such as registry.example.com or registry:5000
    tagtrail.toml:5: source[0].repositories[0]: "Shop/**" is not a pattern over repositories; write paths with * within a part and ** for any parts, such as "shop/**"
    tagtrail.toml:5: source.header: must be the name of an HTTP header, such as X-Tagtrail-Secret
    tagtrail.toml:6: source.name: "main" is the name of another source too; give it a name of its own
    tagtrail.toml:6: trigger.name: "shop" is the name of another trigger too; give it a name of its own
    tagtrail.toml:3: trigger.images.web: the registry "shop" is not valid: it needs a dot or a port (or to be localhost), such as registry.example.com or registry:5000
    tagtrail.toml:3: trigger.images: "Web" is not a name for an image: 1 to 63 of a-z 0-9 - _, starting with a letter or digit
    tagtrail.toml:2: trigger.images: watches nothing; add images.<name> = "registry/repository:tag", or follow = { trigger = "…" }
    tagtrail.toml:1: trigger[0]: missing field `target`; add it
    tagtrail.toml:4: trigger.target: needs exactly one target, such as target.webhook = { url = "https://…", secret = { file = "…" } }
    tagtrail.toml:5: trigger[0].settle: "soon" is not a duration; write a number with ms, s, m or h, such as "30s"
    tagtrail.toml:3: registry.url: must start with https:// (or http://)
    tagtrail.toml:2: registry.username: a username needs a password and a password a username; give both or neither
    tagtrail.toml:4: registry.realm: must start with https:// (or http://)
    tagtrail.toml:5: registry.name: registry.example.com is configured twice; keep one
    tagtrail.toml:6: token.name: "ui" is the name of another token too; give it a name of its own
    tagtrail.toml:4: token[0].role: unknown variant `write`, expected one of `read`, `approve`, `operate`, `report`
    tagtrail.toml:5: token[0].triggers[0]: "Team A" is not a pattern over names of triggers; write 1 to 63 of a-z 0-9 - and *, such as "team-a-*"
    tagtrail.toml:2: token.triggers: names no trigger; write patterns such as ["team-a-*"], or leave the key out for all triggers
    "#);
}

#[test]
fn a_broken_entry_hides_no_other() {
    let wrong = |entry: &str, from: &str, to: &str| {
        assert!(entry.contains(from));
        entry.replace(from, to)
    };
    let text = [
        SOURCE,
        &wrong(SOURCE, "\"main\"", "\"other\"\nheader = 7"),
        REGISTRY,
        &wrong(REGISTRY, "registry.example", "other.example").replace("url", "uri"),
        "aliases = [\"mirror.example.com\"]\n",
        TRIGGER,
        &wrong(TRIGGER, "\"shop\"", "\"broken\"").replace("images.web", "image.web"),
        &TRIGGER.replace("\"shop\"", "\"Shop\""),
        TRIGGER,
        TOKEN,
        &wrong(TOKEN, "\"read\"", "\"write\"").replace("\"ui\"", "\"other\""),
    ];
    let file = File::parse(&text.concat(), Path::new("tagtrail.toml")).unwrap();
    assert_eq!(
        (
            file.source.len(),
            file.registry.len(),
            file.trigger.len(),
            file.token.len()
        ),
        (1, 1, 1, 1)
    );
    let shown = |broken: &Broken| {
        let name = broken.name.as_deref().unwrap_or("?");
        let second = if broken.second { " again" } else { "" };
        format!("{} {name}{second}", broken.table)
    };
    let broken: BTreeSet<String> = file.broken.iter().map(shown).collect();
    let expected = [
        "registry other.example.com",
        "source other",
        "token other",
        "trigger ?",
        "trigger broken",
        "trigger shop again",
    ];
    assert_eq!(broken, expected.map(str::to_owned).into());
    // History must not be written under the alias in the meantime.
    let image = file.names().image("mirror.example.com/a:b").unwrap();
    assert_eq!(image.to_string(), "other.example.com/a:b");
    assert!(file.written(Table::Trigger, "shop").is_some());
    assert!(file.written(Table::Trigger, "broken").is_none());
}

#[test]
fn a_secret_is_read_without_its_newline_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s3cret\n").unwrap();
    let secret = Secret::File(path.clone());
    let read = secret.read().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&read), "s3cret");
    assert!(!format!("{read:?}").contains("s3cret"));
    let place = format!("<the content of {}>", path.display());
    assert_eq!(secret.to_string(), place);
    assert_eq!(Secret::Env("HOOK".to_owned()).to_string(), "$HOOK");
    std::fs::write(&path, "\n").unwrap();
    assert!(secret.read().unwrap_err().to_string().contains("is empty"));
    let unset = Secret::Env("TAGTRAIL_SURELY_NOT_SET".to_owned());
    assert_eq!(
        unset.read().unwrap_err().to_string(),
        "the environment variable TAGTRAIL_SURELY_NOT_SET is not set; set it, or name another one"
    );
}

#[test]
fn white_space_and_a_byte_order_mark_around_a_secret_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let secret = Secret::File(path.clone()).read();
        secret.map(|secret| secrecy::ExposeSecret::expose_secret(&secret).to_owned())
    };
    for text in [
        "\u{feff}two words\r\n",
        " \ttwo words \n\n",
        "\u{feff} two words",
    ] {
        assert_eq!(read(text.as_bytes()).unwrap(), "two words", "{text:?}");
    }
    for empty in ["\u{feff}\n", " "] {
        let error = read(empty.as_bytes()).unwrap_err();
        assert!(matches!(error, SecretError::Empty(_)), "{error}");
    }
    let error = read(b"\xff\xfet\0w\0").unwrap_err().to_string();
    assert!(
        error.ends_with("is not UTF-8 text; save it as UTF-8"),
        "{error}"
    );
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark() {
    let file = File::parse(&format!("\u{feff}{SOURCE}"), Path::new("tagtrail.toml")).unwrap();
    assert_eq!(file.source.len(), 1);
    let error = refused(&format!("\u{feff}{SOURCE}{SOURCE}"));
    assert!(error.starts_with("tagtrail.toml:6: "), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, b"\xff\xfe[\0").unwrap();
    let error = File::load(&path).unwrap_err().to_string();
    assert!(
        error.ends_with(": is not UTF-8 text; save it as UTF-8"),
        "{error}"
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnSettings {
    access: Option<String>,
    nats: Option<Nats>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nats {
    #[expect(dead_code, reason = "only its type is tested")]
    subject: String,
}

#[test]
fn a_source_leaves_the_other_keys_to_its_kind() {
    let all = format!(
        "{SOURCE}registry = \"registry.example.com\"\nheader = \"X-Secret\"\nrepositories = [\"a/*\"]\npulls = \"ignore\"\naccess = \"port\"\n"
    );
    let file = File::parse(&all, Path::new("tagtrail.toml")).unwrap();
    let source = &file.source[0];
    assert_eq!(source.settings.keys().collect::<Vec<_>>(), ["access"]);
    for key in Source::KEYS {
        assert!(all.contains(&format!("{key} = ")), "{key}");
    }
    let own: OwnSettings = source.settings.parse().unwrap();
    assert_eq!(own.access.as_deref(), Some("port"));
    assert!(own.nats.is_none());
}

#[test]
fn a_wrong_setting_of_a_kind_is_named_by_its_key_with_a_cure() {
    for (setting, key, message) in [
        (
            "access = 7",
            "access",
            "invalid type: integer `7`, expected a string",
        ),
        ("nats = {}", "nats", "missing field `subject`; add it"),
        (
            "nats = { subject = 7 }",
            "nats.subject",
            "invalid type: integer `7`, expected a string",
        ),
        (
            "access = [2026-01-01T00:00:00Z]",
            "access",
            "invalid type: sequence, expected a string",
        ),
        (
            "other = 1",
            "other",
            "unknown field `other`, expected `access` or `nats`; remove it",
        ),
    ] {
        let file =
            File::parse(&format!("{SOURCE}{setting}\n"), Path::new("tagtrail.toml")).unwrap();
        let error = file.source[0].settings.parse::<OwnSettings>().unwrap_err();
        assert_eq!(error, SettingError::new(key, message), "{setting}");
    }
}

#[test]
fn files_of_secrets_are_found_from_the_folder_of_the_file() {
    let text = format!(
        "{}{REGISTRY}username = \"ci\"\npassword = {{ file = \"secrets/ci\" }}\n{}",
        SOURCE.replace(
            "{ env = \"S\" }",
            "[{ file = \"old\" }, { file = \"/run/secrets/new\" }]"
        ),
        TOKEN.replace("{ env = \"T\" }", "{ file = \"../token\" }")
    );
    let shown = |path: &str| {
        let file = File::parse(&text, Path::new(path)).unwrap();
        let mut secrets = file.source[0].secret.clone().unwrap().kept().to_vec();
        secrets.extend(file.registry[0].password.clone());
        secrets.extend(file.token[0].secret.kept().to_vec());
        secrets
    };
    let files = |paths: [&str; 4]| paths.map(|path| Secret::File(path.into())).to_vec();
    assert_eq!(
        shown("/etc/tagtrail/tagtrail.toml"),
        files([
            "/etc/tagtrail/old",
            "/run/secrets/new",
            "/etc/tagtrail/secrets/ci",
            "/etc/tagtrail/../token"
        ])
    );
    assert_eq!(
        shown("tagtrail.toml"),
        files(["old", "/run/secrets/new", "secrets/ci", "../token"])
    );
}

#[test]
fn a_word_is_suggested_only_if_it_is_like_the_given_one() {
    let kinds = ["distribution", "harbor", "quay", "ghcr"];
    for (given, meant) in [
        ("harbour", Some("harbor")),
        ("distributon", Some("distribution")),
        ("nexus", None),
        ("", None),
    ] {
        assert_eq!(closest(given, &kinds), meant, "{given}");
    }
}

#[test]
fn wrong_settings_about_results_are_named_with_their_cure() {
    for (line, expected) in [
        (
            "on_failure = \"rollback\"",
            "unknown variant `rollback`, expected one of `retry`, `hold`, `roll-back`",
        ),
        (
            "concurrency = \"wait\"",
            "unknown variant `wait`, expected `supersede` or `finish`",
        ),
        (
            "retry = { then = \"10s\" }",
            "\"10s\" is no pause between later attempts; write a duration from \"1m\" on, such as \"1h\", or \"never\"",
        ),
        (
            "retry = { longest = \"100ms\" }",
            "tagtrail.toml:2: trigger.retry: longest must be 1s or more: a target that fails needs a pause",
        ),
        (
            "timeout = \"0s\"",
            "tagtrail.toml:2: trigger.timeout: must be more than 0s: no target could become healthy",
        ),
        (
            "verify = [{ http = \"https://a.b\", times = 0 }]",
            "tagtrail.toml:3: trigger.verify: times must be 1 to 1000",
        ),
        (
            "verify = [{ http = \"https://a.b\", every = \"2h\" }]",
            "tagtrail.toml:3: trigger.verify: every must be 100ms to 1h",
        ),
        (
            "verify = [{ http = \"https://a.b\", times = 7, every = \"10s\", within = \"1m\" }]",
            "7 passes every 10s take 60s, and within is 60s, so no rollout can succeed; raise within, or lower times or every",
        ),
    ] {
        let text = TRIGGER.replace("images.web", &format!("{line}\nimages.web"));
        let found = refused(&text);
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn a_renamed_from_that_names_a_present_trigger_has_a_warning() {
    let store = TRIGGER.replace("\"shop\"", "\"store\"\nrenamed_from = \"shop\"");
    let warnings = |text: &str| {
        let file = File::parse(text, Path::new("tagtrail.toml")).unwrap();
        file.warnings()
    };
    assert_eq!(warnings(&store), Vec::<String>::new());
    let both = warnings(&format!("{store}{TRIGGER}"));
    assert_eq!(
        both,
        [
            "tagtrail.toml:2: trigger.renamed_from: no effect while shop is configured too: remove the key, or the entry of shop"
        ]
    );
}
