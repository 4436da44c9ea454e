//! `tagtrail import`: the examples of docs/moving.md, and input that is refused.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/moving.md");
    std::fs::read_to_string(path).unwrap()
}

/// Runs the command with a text on standard input.
fn run(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(arguments)
        .env_remove("TAGTRAIL_API")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// The fenced block of a language in a section.
fn block<'a>(section: &'a str, language: &str) -> Option<&'a str> {
    let (_, rest) = section.split_once(&format!("```{language}\n"))?;
    Some(rest.split_once("```\n").unwrap().0)
}

fn example(system: &str) -> String {
    let page = page();
    let mut sections = page.split("\n## ").skip(1);
    let section = sections.find(|section| section.to_lowercase().starts_with(system));
    block(section.unwrap(), "yaml").unwrap().to_owned()
}

#[test]
fn the_examples_of_the_page_are_the_output_and_the_services_take_it() {
    let page = page();
    let mut sections = 0;
    for section in page.split("\n## ").skip(1) {
        let system = section.lines().next().unwrap().to_lowercase();
        let (manifests, expected) = (
            block(section, "yaml").unwrap(),
            block(section, "toml").unwrap(),
        );
        let (code, text, table) = run(&["import", &system, "-"], manifests);
        assert_eq!(code, Some(0), "{table}");
        assert_eq!(
            text, expected,
            "{system}: docs/moving.md has another output"
        );
        assert!(
            table.contains("exact") && table.contains("left out"),
            "{table}"
        );
        let widest = table.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{table}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tagtrail.toml");
        std::fs::write(&file, &text).unwrap();
        let (code, good, error) = run(&["config", "check", file.to_str().unwrap()], "");
        assert_eq!(code, Some(0), "{system}: {error}");
        let triggers = text.matches("[[trigger]]").count();
        assert_eq!(good.matches("\n  trigger ").count(), triggers, "{good}");
        sections += 1;
    }
    assert_eq!(sections, 5);
}

#[test]
fn secrets_are_named_and_their_content_is_not_shown() {
    let manifests = example("flux")
        + "---\nkind: Secret\nmetadata: {name: ghcr-auth, namespace: flux-system}\ndata: {password: aHVudGVyMg==}\n";
    let (code, text, table) = run(&["import", "flux", "-"], &manifests);
    assert_eq!(code, Some(0), "{table}");
    assert!(
        text.contains("flux-system/ghcr-auth") && table.contains("secretRef"),
        "{text}"
    );
    assert!(!(text + &table).contains("aHVudGVyMg"));
}

#[test]
fn hostile_names_stay_within_their_line_and_string() {
    let manifests = r#"{"kind": "Deployment", "metadata": {"name": "a\n[[token]]\u001b[2J", "annotations": {"keel.sh/policy": "minor"}},
        "spec": {"template": {"spec": {"containers": [{"name": "w\"\nx", "image": "r.example.com/w:1.0\"\n[[token]]"},
                                                      {"name": "b", "image": "r.example.com/b:1.0"}]}}}}"#;
    let (code, text, table) = run(&["import", "keel", "-"], manifests);
    assert_eq!(code, Some(0), "{table}");
    assert!(
        !text.lines().any(|line| line.starts_with("[[token")),
        "{text}"
    );
    assert!(!(text.clone() + &table).contains('\u{1b}'), "{text}{table}");
    assert!(text.contains("images.b = "), "{text}");
}

#[test]
fn a_selection_that_differs_is_an_error() {
    let status = "status: {latestRef: {name: ghcr.io/stefanprodan/podinfo, tag: 5.0.3}}\n---";
    let manifests =
        example("flux").replacen("range: 5.0.x\n---", &format!("range: 5.0.x\n{status}"), 1);
    assert!(manifests.contains("latestRef"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tags");
    for (tags, code, word) in [
        (
            "ghcr.io/stefanprodan/podinfo:5.0.3\nghcr.io/stefanprodan/podinfo:5.1.0\n",
            0,
            "1 same",
        ),
        (
            "ghcr.io/stefanprodan/podinfo:5.0.3\nghcr.io/stefanprodan/podinfo:5.0.4\n",
            1,
            "1 other",
        ),
        ("# none\n", 1, "1 no such tag"),
    ] {
        std::fs::write(&file, tags).unwrap();
        let arguments = [
            "import",
            "flux",
            "-",
            "--verify",
            "--tags",
            file.to_str().unwrap(),
        ];
        let (found, _, table) = run(&arguments, &manifests);
        assert_eq!(found, Some(code), "{table}");
        assert!(
            table.contains(word) && table.contains("1 not selected"),
            "{table}"
        );
    }
}

#[test]
fn wrong_input_is_refused_with_the_cure() {
    for (arguments, input, code, cure) in [
        (&["import", "flux", "-"][..], "kind: [", 1, "can't read -"),
        (
            &["import", "flux", "-"],
            "kind: ConfigMap\nmetadata: {name: x}\n",
            3,
            "kubectl get",
        ),
        (&["import", "flux", "/no/such/file"], "", 1, "/no/such/file"),
        (&["import", "keel", "-", "--verify"], "", 2, "flux"),
        (&["import", "spinnaker", "-"], "", 2, "openshift"),
    ] {
        let (found, _, error) = run(arguments, input);
        assert_eq!(found, Some(code), "{error}");
        assert!(error.contains(cure), "{error}");
    }
}
