//! The example for target `command` with docker compose.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// A program in place of docker, which notes its arguments and fails at an `up` if told so.
const DOCKER: &str = "#!/bin/sh\necho \"$@\" >> calls\ncase \"$* $FAIL\" in *pull*pull|*\" up \"*up) exit 1;; esac\n";

#[test]
fn the_images_are_pinned_in_an_override_file() {
    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    std::fs::write(&docker, DOCKER).unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/compose.sh");
    let script = script.canonicalize().unwrap();
    let run = |images: &[(&str, &str)], fail: &str| {
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let done = Command::new(&script)
            .args(["web", "web-app"])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", path)
            .env("FAIL", fail)
            .envs(images.iter().copied())
            .output()
            .unwrap();
        (
            done.status.success(),
            String::from_utf8(done.stderr).unwrap(),
        )
    };
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let one = [("TAGTRAIL_IMAGE_WEB", "r.example.com/web@sha256:1")];
    let (good, error) = run(&one, "");
    assert!(
        !good && error.contains("TAGTRAIL_IMAGE_WEB_APP is not set"),
        "{error}"
    );
    assert_eq!(file("calls"), "");

    let both = [
        one[0],
        ("TAGTRAIL_IMAGE_WEB_APP", "r.example.com/app@sha256:2"),
    ];
    assert!(!run(&both, "pull").0);
    assert_eq!(file("compose.tagtrail.yaml"), "");
    assert!(!run(&both, "up").0);
    assert!(run(&both, "").0);
    let pinned = "services:\n  web:\n    image: \"r.example.com/web@sha256:1\"\n  web-app:\n    image: \"r.example.com/app@sha256:2\"\n";
    assert_eq!(file("compose.tagtrail.yaml"), pinned);
    let calls = file("calls");
    let last = calls.lines().last().unwrap();
    assert_eq!(
        last,
        "compose -f compose.yaml -f compose.tagtrail.yaml up --detach --wait --no-deps web web-app"
    );
}
