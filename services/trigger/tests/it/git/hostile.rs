//! Content of a repository that wants to run programs, or to lead out of the path.

use std::os::unix::fs::{PermissionsExt, symlink};

use tagtrail_proto::RolloutState::Succeeded;

use super::repository::run;
use super::{Place, WEB_YAML, with_digest};
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn hooks_filters_links_and_submodules_have_no_effect() {
    let mut place = Place::new("").await;
    let mark = place.world.folder.path().join("ran");
    let touch = format!("touch {}", mark.display());
    let repository = &place.repository;
    let work = repository.work();
    let outside = place.world.folder.path().join("outside.yaml");
    std::fs::write(&outside, WEB_YAML).unwrap();
    // Hooks and settings in places that a checkout would take them from.
    for name in [
        "hooks/pre-push",
        "prod/hooks/post-checkout",
        ".githooks/pre-commit",
    ] {
        let path = work.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{touch}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let attributes = "* filter=evil diff=evil merge=evil text eol=crlf\n*.yaml filter=lfs ident\n";
    std::fs::write(work.join(".gitattributes"), attributes).unwrap();
    let settings = format!(
        "[filter \"evil\"]\n\tclean = {touch}\n\tsmudge = {touch}\n[core]\n\tfsmonitor = {touch}\n\thooksPath = hooks\n\tsshCommand = {touch}\n"
    );
    std::fs::write(work.join(".gitconfig"), &settings).unwrap();
    std::fs::write(work.join("config"), &settings).unwrap();
    std::fs::write(
        work.join(".lfsconfig"),
        "[lfs]\n\turl = https://lfs.invalid\n",
    )
    .unwrap();
    std::fs::write(
        work.join(".gitmodules"),
        format!(
            "[submodule \"m\"]\n\tpath = prod/m\n\turl = {}\n\tupdate = !{touch}\n",
            repository.url()
        ),
    )
    .unwrap();
    // Links to a file and to a folder outside, and the same file below another path.
    symlink(&outside, work.join("prod/link.yaml")).unwrap();
    symlink(place.world.folder.path(), work.join("prod/folder")).unwrap();
    std::fs::create_dir_all(work.join("staging")).unwrap();
    std::fs::write(work.join("staging/web.yaml"), WEB_YAML).unwrap();
    repository.person(&["add", "--force", "--all"]);
    let head = repository.person(&["rev-parse", "HEAD"]);
    let module = format!("160000,{},prod/m", head.trim());
    run(&work, &["update-index", "--add", "--cacheinfo", &module]);
    repository.person(&["commit", "--quiet", "--message", "hostile"]);
    repository.person(&["push", "--quiet", &repository.url(), "HEAD:refs/heads/main"]);
    let before = repository.git(&["ls-tree", "-r", "main"]);
    let web = repository.read("main", "prod/web.yaml");

    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let repository = &place.repository;
    assert!(!mark.exists(), "a program of the repository ran");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), WEB_YAML);
    assert_eq!(
        repository.read("main", "prod/web.yaml"),
        with_digest(&web, 1)
    );
    // One file has changed, and all modes are as before.
    let after = repository.git(&["ls-tree", "-r", "main"]);
    let changed: Vec<(&str, &str)> = before
        .lines()
        .zip(after.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert_eq!(before.lines().count(), after.lines().count());
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].1.ends_with("prod/web.yaml"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_a_link_has_no_files() {
    let mut place = Place::new("").await;
    let repository = &place.repository;
    std::fs::create_dir_all(repository.work().join("staging")).unwrap();
    std::fs::rename(
        repository.work().join("prod/web.yaml"),
        repository.work().join("staging/web.yaml"),
    )
    .unwrap();
    std::fs::remove_dir_all(repository.work().join("prod")).unwrap();
    symlink("staging", repository.work().join("prod")).unwrap();
    repository.commit("main", "link");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let error = place.refused().await;
    assert!(
        error.contains("no YAML file below prod has a marker"),
        "{error}"
    );
    assert_eq!(place.repository.read("main", "staging/web.yaml"), WEB_YAML);
    service.stop().await;
}
