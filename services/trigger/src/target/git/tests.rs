use std::path::Path;

use super::*;

fn parsed(images: &str, settings: &str) -> Result<Settings, String> {
    let text = format!(
        "[[trigger]]\nname = \"shop\"\n{images}\n[trigger.target.git]\nurl = \"https://git.example.com/ops/deploy.git\"\nbranch = \"main\"\n{settings}\n"
    );
    let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
    let trigger = &file.trigger[0];
    Settings::parse(trigger.target().value, trigger)
}

const WEB: &str = "images.web = \"registry.example.com/shop/web\"";
const BOTH: &str = "images.web = \"registry.example.com/shop/web\"\nimages.worker = \"registry.example.com/shop/worker\"";

#[test]
fn a_url_and_a_branch_are_all_that_must_be_written() {
    let settings = parsed(WEB, "").unwrap();
    assert_eq!(settings.edits, [edits::Edit::Markers]);
    assert_eq!(settings.markers["web"], "shop:web");
    assert_eq!((settings.push, settings.path.as_str()), (Push::Direct, ""));
    assert_eq!(settings.author.email, "tagtrail@localhost");
    let settings = parsed(
        BOTH,
        "path = \"/clusters/prod/\"\nmarkers.worker = \"flux-system:worker\"\npush = \"branch\"",
    )
    .unwrap();
    assert_eq!(
        (settings.path.as_str(), settings.push),
        ("clusters/prod", Push::Branch)
    );
    assert_eq!(settings.markers["web"], "shop:web");
    assert_eq!(settings.markers["worker"], "flux-system:worker");
}

#[test]
fn a_wrong_setting_is_named_with_its_cure() {
    let yaml = "edits = [{ yaml = \"values.yaml\", at = \"image.digest\" }]";
    let ssh = "auth = { ssh = { key = { file = \"k\" }, known_hosts = { file = \"h\" } } }";
    for (images, settings, expected) in [
        (
            WEB,
            "path = \"../other\"",
            "path: \"../other\" is no path in the repository; write one such as \"clusters/prod\", without \"..\"",
        ),
        (
            WEB,
            "edits = []",
            "edits has 0 entries; write 1 to 50, such as edits = [\"markers\"]",
        ),
        (
            WEB,
            "edits = [\"helm\"]",
            "edits[0]: write \"markers\", \"kustomize\" or { yaml = ",
        ),
        (
            WEB,
            "edits = [{ yaml = \"a.yaml\", at = \"a..b\" }]",
            "edits: \"a..b\" is no place; write one such as",
        ),
        (
            BOTH,
            yaml,
            "edits: the trigger has several images; write image = \"…\" beside yaml = \"values.yaml\"",
        ),
        (
            WEB,
            "markers.app = \"a:b\"",
            "markers: the trigger has no image app; known are web",
        ),
        (
            WEB,
            "markers.web = \"web\"",
            "markers.web: \"web\" is no name of a marker; write two words with a colon, such as \"flux-system:web\"",
        ),
        (
            WEB,
            "author = \"Tagtrail\"",
            "author: \"Tagtrail\" is no author; write one such as",
        ),
        (WEB, "author = \"A <a@b>\\nB <c@d>\"", "author: "),
        (WEB, "message = \"{{ images.app }\"", "message: "),
        (WEB, "message = \"{{ images.app.image }}\"", "message: "),
        (
            WEB,
            "timeout_seconds = 0",
            "timeout_seconds must be 1 to 600",
        ),
        (
            WEB,
            ssh,
            "auth: ssh needs a url with ssh://; with https:// write auth = { username",
        ),
        (WEB, "auth = { token = \"x\" }", "auth: write { ssh = "),
        (WEB, "colour = \"red\"", "unknown field `colour`"),
    ] {
        let error = parsed(images, settings).err().unwrap();
        assert!(error.starts_with(expected), "{settings}: {error}");
    }
    for branch in [
        "",
        "a b",
        "-x",
        "a..b",
        "a.lock",
        "refs/heads/main",
        "a/",
        "@",
        "a:b",
    ] {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\n{WEB}\ntarget.git = {{ url = \"https://a.b/c\", branch = {branch:?} }}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let trigger = &file.trigger[0];
        let error = Settings::parse(trigger.target().value, trigger)
            .err()
            .unwrap();
        assert!(error.starts_with("branch: "), "{branch}: {error}");
    }
}

#[test]
fn the_page_names_every_key() {
    let page = include_str!("../../../../../docs/git.md");
    let error = parsed(WEB, "no_such_key = 1").err().unwrap();
    let (_, known) = error.split_once("expected one of ").unwrap();
    let keys: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    assert!(keys.len() > 10, "{error}");
    for key in keys {
        assert!(page.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

#[test]
fn a_secret_that_is_no_key_is_refused_when_the_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("public"), "ssh-ed25519 AAAA test\n").unwrap();
    std::fs::write(path("hosts"), "host ssh-ed25519 AAAA\n").unwrap();
    let text = format!(
        "[[trigger]]\nname = \"shop\"\n{WEB}\ntarget.git = {{ url = \"ssh://git@a.b/c\", branch = \"main\", auth = {{ ssh = {{ key = {{ file = {:?} }}, known_hosts = {{ file = {:?} }} }} }} }}\n",
        path("public"),
        path("hosts")
    );
    let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
    let (_, broken) = super::super::targets(&file, &Clusters::of(&file, None), |_| None);
    let error = broken[0].problem.to_string();
    assert!(
        error.contains("auth.ssh.key: is no private key of SSH; make one"),
        "{error}"
    );
    assert!(!error.contains("AAAA"), "{error}");
}
