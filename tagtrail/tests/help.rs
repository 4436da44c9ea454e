//! The help of every command names the flags, variables and defaults that users rely on.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(done.status.success(), "{arguments:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn every_command_has_help() {
    let all = help(&[]);
    for (command, mentions) in [
        (
            "up",
            &[
                "--data",
                "--config",
                "--gateway",
                "--api",
                "--admin",
                "127.0.0.1:8400",
                "127.0.0.1:8401",
                "127.0.0.1:8402",
                ".tagtrail",
            ][..],
        ),
        (
            "gateway",
            &[
                "NATS_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_GATEWAY_LISTEN",
                "TAGTRAIL_ADMIN",
                "TAGTRAIL_LOG",
            ],
        ),
        (
            "import",
            &[
                "flux",
                "keel",
                "argo",
                "kargo",
                "openshift",
                "--verify",
                "--tags",
            ],
        ),
        ("notify", &["test"]),
        (
            "report",
            &["deployments", "running", "--known-at", "--sql", "--match"],
        ),
        ("resolver", &["NATS_URL", "TAGTRAIL_CONFIG"]),
        (
            "indexer",
            &["NATS_URL", "DATABASE_URL", "TAGTRAIL_PARTITIONS"],
        ),
        (
            "trigger",
            &[
                "NATS_URL",
                "DATABASE_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_ATTEMPTS",
                "TAGTRAIL_COMMANDS",
                "test",
            ],
        ),
        (
            "api",
            &[
                "DATABASE_URL",
                "NATS_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_API_LISTEN",
            ],
        ),
        ("migrate", &["DATABASE_URL"]),
        ("init", &["KIND=REGISTRY", "--dir"]),
        ("config", &["check"]),
        (
            "doctor",
            &[
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_GATEWAY",
                "TAGTRAIL_API",
                "TAGTRAIL_TOKEN",
                "--setup",
                "--output",
            ],
        ),
        ("health", &["TAGTRAIL_ADMIN"]),
        ("completions", &["bash", "zsh", "fish"]),
        ("man", &["--dir"]),
        (
            "quarantine",
            &["list", "show", "replay", "NATS_URL", "--data"],
        ),
        (
            "republish",
            &["--image", "--since", "NATS_URL", "DATABASE_URL", "--data"],
        ),
        (
            "resolve",
            &[
                "TAGTRAIL_API",
                "--at",
                "--known-at",
                "--revision",
                "--output",
                "table",
                "wide",
                "json",
                "--local",
                "--utc",
                "TAGTRAIL_UTC",
            ],
        ),
        (
            "images",
            &["TAGTRAIL_API", "--limit", "--signatures", "--output"],
        ),
        (
            "tags",
            &[
                "TAGTRAIL_API",
                "--contains",
                "--class",
                "--sort",
                "--at",
                "--deleted",
                "--signatures",
                "--limit",
            ],
        ),
        (
            "history",
            &["TAGTRAIL_API", "--since", "--until", "--limit", "--output"],
        ),
        (
            "watch",
            &[
                "TAGTRAIL_TOKEN",
                "--since",
                "--kinds",
                "--trigger",
                "--output",
            ],
        ),
        ("digest", &["TAGTRAIL_API", "--output"]),
        ("manifest", &["TAGTRAIL_API", "--output"]),
        (
            "triggers",
            &["--contains", "--condition", "--behind", "--output"],
        ),
        ("rollouts", &["--contains", "--limit", "--output"]),
        ("pause", &["TAGTRAIL_API", "--reason"]),
        ("resume", &["TAGTRAIL_API", "--reason"]),
        ("retry", &["TAGTRAIL_API", "--reason"]),
        ("status", &["TAGTRAIL_API", "--output"]),
        ("explain", &["TAGTRAIL_API", "--at", "--limit"]),
        ("rollout", &["TAGTRAIL_API", "--to", "--skip", "--reason"]),
        ("rollback", &["--to", "--until", "--reason"]),
        ("pin", &["--until", "--reason", "web=@17"]),
        ("release", &["--reason", "--all"]),
        ("cancel", &["--reason"]),
        ("approvals", &["TAGTRAIL_API", "--output"]),
        ("approve", &["<ID>", "--reason"]),
        ("reject", &["<ID>", "--reason"]),
        ("holds", &["TAGTRAIL_API", "--ended-since", "--output"]),
        ("freeze", &["--reason", "--until", "--hard"]),
        ("thaw", &["--reason"]),
        ("acts", &["TAGTRAIL_API", "--actor", "--since", "--limit"]),
    ] {
        assert!(
            all.contains(&format!("  {command} ")),
            "{command} is not listed"
        );
        let text = help(&[command]);
        for mention in mentions {
            assert!(
                text.contains(mention),
                "{command} --help does not name {mention}:\n{text}"
            );
        }
    }
}

#[test]
fn passwords_in_the_environment_are_not_shown() {
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(["trigger", "--help"])
        .env("DATABASE_URL", "postgres://user:hidden@127.0.0.1/tagtrail")
        .env("NATS_URL", "nats://user:hidden@127.0.0.1:4222")
        .output()
        .unwrap();
    assert!(!String::from_utf8(done.stdout).unwrap().contains("hidden"));
}

#[test]
fn wrong_usage_exits_with_2_and_an_error() {
    for arguments in [
        &["resolve"][..],
        &["no-such-command"],
        &["rollouts", "--limit", "0"],
        &["doctor", "--gateway", "nowhere"],
        &["doctor", "--gateway", "http://user:password@127.0.0.1:8400"],
        &["doctor", "--api", "nowhere"],
        &["up", "--gateway", "nowhere"],
    ] {
        let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8(done.stderr).unwrap().contains("error: "),
            "{arguments:?}"
        );
    }
}

fn tagtrail(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    (
        done.status.code().unwrap(),
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    )
}

#[test]
fn completion_scripts_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = tagtrail(&["completions", shell], &[]);
        assert_eq!(code, 0);
        for command in ["quarantine", "republish", "watch", "resolver"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let (_, script, _) = tagtrail(&["completions", "bash"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail");
    std::fs::write(&path, script).unwrap();
    // The candidates that a user's shell would offer.
    let complete = format!(
        "source {}; COMP_WORDS=(tagtrail res); COMP_CWORD=1; _tagtrail tagtrail res tagtrail; echo \"${{COMPREPLY[@]}}\"",
        path.display()
    );
    let said = Command::new("bash")
        .args(["-c", &complete])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.trim(), "resolver resolve resume", "{said}");
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let (code, page, _) = tagtrail(&["man"], &[]);
    assert_eq!(code, 0);
    assert!(
        page.contains(".TH tagtrail 1") && page.contains("republish"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man1");
    assert_eq!(tagtrail(&["man", "--dir", dir.to_str().unwrap()], &[]).0, 0);
    for name in [
        "tagtrail",
        "tagtrail-up",
        "tagtrail-watch",
        "tagtrail-quarantine-replay",
    ] {
        let text = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{name}");
    }
}

#[test]
fn config_check_reads_kubeconfigs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    let text = "[[cluster]]\nname = \"prod\"\nkubeconfig = { file = \"prod.kubeconfig\" }\ncontext = \"prod\"\n";
    std::fs::write(&path, text).unwrap();
    let check = || tagtrail(&["config", "check", path.to_str().unwrap()], &[]);
    let refused = |expected: &str| {
        let (code, _, error) = check();
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    };
    refused("tagtrail.toml:2: cluster.kubeconfig: the kubeconfig ");
    refused("prod.kubeconfig can't be read: No such file or directory (os error 2)");
    let kubeconfig = folder.path().join("prod.kubeconfig");
    std::fs::write(&kubeconfig, "{").unwrap();
    refused("prod.kubeconfig can't be read: ");
    let contexts = |name: &str| {
        let text = format!(
            "contexts: [{{name: {name}, context: {{cluster: c, user: u}}}}]\nusers: []\nclusters: []\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
    };
    contexts("test");
    refused("the kubeconfig has no context \"prod\"; known are test");
    contexts("prod");
    let (code, said, error) = check();
    assert_eq!(code, 0, "{said}{error}");
}

#[test]
fn config_check_reads_the_file_as_the_services_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    let check = |text: &str, environment: &[(&str, &str)]| {
        std::fs::write(&path, text).unwrap();
        tagtrail(&["config", "check", path.to_str().unwrap()], environment)
    };
    let text = r#"
[[source]]
name = "main"
kind = "distribution"
registry = "registry.example.com"
secret = { env = "CHECK_HOOK_SECRET" }

[[registry]]
name = "registry.example.com"
url = "https://registry.example.com"

[[trigger]]
name = "shop"
images.web = "registry.example.com/shop/web"
target.command = { run = ["/bin/true"] }

[[token]]
name = "ops"
secret = { env = "CHECK_TOKEN" }
role = "operate"
"#;
    let environment = [
        ("CHECK_HOOK_SECRET", "0123456789abcdef"),
        ("CHECK_TOKEN", "0123456789abcdef"),
    ];
    let (code, said, _) = check(text, &environment);
    assert_eq!(code, 0);
    for line in [
        ": good",
        "source main: POST /hooks/main takes distribution events about registry.example.com",
        "registry registry.example.com: asked at https://registry.example.com without a password",
        "trigger shop: rolls out registry.example.com/shop/web:latest by command",
        "token ops: may read and give orders",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    // The tests may run as root.
    let root = |line: &&str| line.contains("the program runs as root; set user");
    let warnings = said
        .lines()
        .filter(|line| line.contains("warning") && !root(line));
    assert_eq!(warnings.count(), 0, "{said}");
    assert!(!said.contains("by default"), "{said}");
    let two = text.replace(
        "images.web = \"registry.example.com/shop/web\"",
        "images = { web = \"registry.example.com/shop/web\", job = \"registry.example.com/shop/job\" }",
    );
    let (_, said, _) = check(&two, &environment);
    let default = "after 2s without a change (settle, by default: of several images)";
    assert!(said.contains(default), "{said}");
    let any = text.replacen("\"registry.example.com\"", "\"any\"", 1);
    let (code, said, _) = check(&any, &environment);
    let warned = "tagtrail.toml:14: trigger shop, images.web: source main, which is of any registry, can move registry.example.com/shop/web:latest";
    assert!(code == 0 && said.contains(warned), "{said}");
    for (changed, warned) in [
        (
            text.replace(
                "web = \"registry.example.com",
                "web = \"registry.exmaple.com",
            ),
            "tagtrail.toml:14: trigger shop, images.web: nothing can move registry.exmaple.com/shop/web:latest",
        ),
        (
            text.replace(
                "web = \"registry.example.com",
                "web = \"registry.exmaple.com",
            ),
            "did you mean registry.example.com?",
        ),
        (
            text.replace("\"distribution\"", "\"quay\"").replace(
                "[[registry]]\nname = \"reg",
                "[[registry]]\nname = \"other.reg",
            ),
            "tagtrail.toml:4: source.kind: events of kind \"quay\" name no digests",
        ),
        (
            text.replace("/bin/true", "./absent.sh"),
            "has no program ./absent.sh",
        ),
    ] {
        let (code, said, _) = check(&changed, &environment);
        assert!(code == 0 && said.contains(warned), "{warned}: {said}");
    }
    for (wrong, place) in [
        (
            text.replace("\"distribution\"", "\"harbour\""),
            ":4: source.kind: ",
        ),
        (
            text.replace("\"distribution\"", "\"harbour\""),
            "did you mean \"harbor\"?",
        ),
        (
            text.replace("[\"/bin/true\"]", "\"./deploy.sh --now\""),
            "write run = [\"./deploy.sh\", \"--now\"]",
        ),
        (
            text.replace("target.command", "target.comand"),
            "did you mean command?",
        ),
        (
            text.replacen("registry = \"registry.example.com\"\n", "", 1),
            ":3: source.registry: source main names no registry; add registry = \"registry.example.com\", as images name it, or registry = \"any\"",
        ),
        (
            text.replace("target.command", "target.telepathy"),
            ":15: trigger.target.telepathy: ",
        ),
        (text.replace("https://", "ftp://"), ":10: registry.url: "),
        (
            text.replace("CHECK_TOKEN", "CHECK_NOTHING"),
            ":18: token.secret: ",
        ),
    ] {
        let (code, said, error) = check(&wrong, &environment);
        assert_eq!((code, said.as_str()), (1, ""));
        assert!(error.contains(place), "{place} is not in {error}");
    }
    let (code, _, error) = tagtrail(&["config", "check", "/no/such/file"], &[]);
    assert!(code == 1 && error.contains("can't be read"), "{error}");
}

#[test]
fn init_writes_a_file_that_passes_the_check_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    let dir = dir.to_str().unwrap();
    let names = [
        "harbor",
        "quay",
        "dockerhub",
        "distribution",
        "harbor-2",
        "zot",
        "generic",
    ];
    let kinds = [
        "harbor=harbor.example.com",
        "quay=quay.io",
        "dockerhub",
        "distribution=127.0.0.1:5000",
        "harbor=other.example.com",
        "zot=zot.example.com",
        "generic=harbor.example.com",
    ];
    let all = [&["init", "--dir", dir][..], &kinds].concat();
    let (code, said, error) = tagtrail(&all, &[]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("tagtrail up --config"), "{said}");
    let path = |name: &str| format!("{dir}/{name}");
    // From another folder: paths of secrets are relative to the file.
    let (code, said, error) = tagtrail(&["config", "check", &path("tagtrail.toml")], &[]);
    assert_eq!(code, 0, "{error}");
    for line in [
        "source harbor: POST /hooks/harbor takes harbor events about harbor.example.com",
        "source harbor-2: POST /hooks/harbor-2 takes harbor events about other.example.com",
        "registry docker.io: asked at https://registry-1.docker.io",
        "registry 127.0.0.1:5000: asked at http://127.0.0.1:5000",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert!(!said.contains("warning"), "{said}");
    let secret = |name: &str| std::fs::read_to_string(path(&format!("secrets/{name}"))).unwrap();
    for name in names {
        let file = std::fs::metadata(path(&format!("secrets/{name}"))).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(secret(name).trim().len(), 48, "{name}");
    }
    let different: std::collections::BTreeSet<String> = names.map(secret).into();
    assert_eq!(different.len(), names.len());
    let before = std::fs::read_to_string(path("tagtrail.toml")).unwrap();
    let (code, _, error) = tagtrail(&all, &[]);
    assert!(
        code == 1 && error.contains("nothing was written"),
        "{error}"
    );
    let after = std::fs::read_to_string(path("tagtrail.toml")).unwrap();
    assert_eq!(after, before);
    // A secret that is there is kept.
    std::fs::remove_file(path("tagtrail.toml")).unwrap();
    let (code, said, _) = tagtrail(&all, &[]);
    assert!(code == 0 && said.contains("kept "), "{said}");
    assert!(different.contains(&secret("quay")));
}

#[test]
fn init_refuses_an_unknown_kind_with_a_cure() {
    for (wrong, cure) in [
        ("harbour=a.b", "did you mean harbor?"),
        ("harbor", "harbor=registry.example.com"),
        ("harbor=nodots", "needs a dot"),
    ] {
        let (code, _, error) = tagtrail(&["init", wrong], &[]);
        assert!(code == 2 && error.contains(cure), "{wrong}: {error}");
    }
}

#[test]
fn health_of_a_missing_process_is_exit_code_1() {
    let (code, _, error) = tagtrail(&["health"], &[("TAGTRAIL_ADMIN", "127.0.0.1:9")]);
    assert_eq!(code, 1);
    assert!(
        error.contains("no answer from 127.0.0.1:9") && error.contains("TAGTRAIL_ADMIN"),
        "{error}"
    );
}
