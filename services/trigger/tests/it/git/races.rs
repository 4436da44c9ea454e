//! Others who push at the same time, servers that refuse or hang, and processes that die.

use std::process::Command;

use tagtrail_proto::RolloutState::{Failed, Succeeded};
use tagtrail_testkit::{SOON, eventually};
use tokio::time::Instant;

use super::{Place, WEB_YAML, trigger, with_digest};
use crate::world::*;

/// A hook by which somebody else pushes between the fetch and the push of Tagtrail, so many times.
fn others(times: usize) -> String {
    // The objects of the push are not of the repository yet.
    format!(
        "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n\
         test $(ls races | wc -l) -lt {times} || exit 0\n\
         mktemp races/XXXXXX\n\
         export GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@x GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@x\n\
         new=$(echo by hand | git commit-tree -p main 'main^{{tree}}')\n\
         git update-ref refs/heads/main $new"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_by_hand_between_fetch_and_push_is_kept() {
    let mut place = Place::new("").await;
    std::fs::create_dir(place.repository.path().join("races")).unwrap();
    place.repository.hook("pre-receive", &others(2));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(place.world.rollouts().await, [(1, Succeeded, 1)]);
    let subjects = place.repository.git(&["log", "--format=%s", "main"]);
    let subjects: Vec<&str> = subjects.lines().collect();
    let ours = format!("Roll out shop #1: {WEB}");
    assert_eq!(subjects, [ours.as_str(), "by hand", "by hand", "first"]);
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_lost_races_the_next_attempt_goes_on() {
    let mut place = Place::new("").await;
    std::fs::create_dir(place.repository.path().join("races")).unwrap();
    place.repository.hook("pre-receive", &others(5));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(place.world.rollouts().await, [(1, Succeeded, 2)]);
    let errors = place.world.errors().await;
    assert!(
        errors[0].contains("others pushed to branch main of "),
        "{errors:?}"
    );
    assert_eq!(place.repository.count("main"), 7);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_branch_refuses_with_the_words_of_the_server() {
    let mut place = Place::new("").await;
    let hook = "echo 'GH006: Protected branch update failed' >&2; exit 1";
    place.repository.hook("pre-receive", hook);
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let error = place.refused().await;
    for words in [
        "the server refuses the push to branch main of ",
        "[remote rejected] (pre-receive hook declined)",
        "GH006: Protected branch update failed",
        "write push = \"branch\"",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(place.world.outcomes().await, ["refused"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_one_file_refuses_no_other_trigger() {
    let mut place = Place::new("").await;
    let marked = "image: x # {\"$imagepolicy\": \"locked:web\"}\n";
    place
        .repository
        .write(&[("prod/locked.yaml", marked)], "locked");
    let hook = "sleep 1; while read old new ref; do git diff --name-only $old $new | grep -q locked && exit 1; done; exit 0";
    place.repository.hook("pre-receive", hook);
    let config = trigger("shop", &place.settings("")) + &trigger("locked", &place.settings(""));
    place.world.configure(&config);
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    place.wait(1, Failed).await;
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    let error = place.world.error_of("locked").await.unwrap();
    assert!(error.contains("the server refuses the push"), "{error}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_branch() {
    let mut place = Place::new("").await;
    let names: Vec<String> = (0..6).map(|n| format!("team{n}")).collect();
    let files: Vec<(String, String)> = names
        .iter()
        .map(|name| {
            let text = format!("image: x # {{\"$imagepolicy\": \"{name}:web\"}}\n");
            (format!("prod/{name}.yaml"), text)
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    place.repository.write(&files, "teams");
    let config: String = names
        .iter()
        .map(|name| trigger(name, &place.settings("")))
        .collect();
    place.world.configure(&config);
    let (first, second) = (place.world.start().await, place.world.start().await);
    for n in 1..=3 {
        place.world.push(WEB, n).await;
        eventually(&format!("all rollouts of push {n}"), SOON * 3, async || {
            let rollouts = place.world.rollouts().await;
            let done = rollouts
                .iter()
                .filter(|row| row.0 == i64::from(n) && row.1 == Succeeded);
            (done.count() == names.len()).then_some(())
        })
        .await;
        for name in &names {
            let text = place.repository.read("main", &format!("prod/{name}.yaml"));
            assert!(text.contains(&digest(n).to_string()), "{text}");
        }
    }
    // The lock spares every race.
    assert_eq!(place.world.errors().await, Vec::<String>::new());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_replaced_is_edited_as_it_is_now() {
    // With "hold" the old value in the new history is a change by others, as a revert is.
    let (mut place, service) = Place::rolled_out("on_foreign_change = \"ignore\"").await;
    // Another history without the commit of Tagtrail.
    let repository = &place.repository;
    repository.person(&["checkout", "--quiet", "--orphan", "other"]);
    std::fs::write(
        repository.work().join("prod/web.yaml"),
        format!("# new\n{WEB_YAML}"),
    )
    .unwrap();
    repository.commit("main", "replaced");
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    let expected = format!("# new\n{}", with_digest(WEB_YAML, 2));
    assert_eq!(place.repository.read("main", "prod/web.yaml"), expected);
    assert_eq!(place.repository.count("main"), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_damaged_is_made_again() {
    let (mut place, service) = Place::rolled_out("").await;
    let clones = place.world.folder.path().join("clones");
    let process = std::fs::read_dir(&clones).unwrap().next().unwrap().unwrap();
    let clone = std::fs::read_dir(process.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "git"))
        .unwrap();
    // As a killed git leaves it behind, and as a full disk does.
    std::fs::write(clone.join("shallow.lock"), "").unwrap();
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    std::fs::write(clone.join("HEAD"), "").unwrap();
    place.world.push(WEB, 3).await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.world.errors().await, Vec::<String>::new());
    service.stop().await;
    // Nothing stays behind.
    assert_eq!(std::fs::read_dir(&clones).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_between_commit_and_push_leaves_the_rollout_to_the_next_one() {
    let mut place = Place::new("").await;
    let clones = place.world.folder.path().join("clones");
    let clones = clones.to_str().unwrap().to_owned();
    place.world.push(WEB, 1).await;
    let mut first = place.world.process_with(&[
        ("TAGTRAIL_FAILPOINT", "trigger.committed:abort"),
        ("TAGTRAIL_CLONES", &clones),
    ]);
    first.ended(SOON).await;
    assert_eq!(place.repository.count("main"), 1);
    let _second = place.world.process_with(&[("TAGTRAIL_CLONES", &clones)]);
    place.wait(1, Succeeded).await;
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    assert_eq!(place.repository.count("main"), 2);
    assert_eq!(place.world.outcomes().await, ["interrupted", "done"]);
    // The folder of the dead process, with the credentials, is gone.
    assert_eq!(std::fs::read_dir(&clones).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_ends_the_attempt_and_stops_no_other_branch() {
    let mut place = Place::new("").await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let hanging =
        format!("url = \"https://127.0.0.1:{port}/x\"\nbranch = \"main\"\ntimeout_seconds = 1");
    let config = trigger("hanging", &hanging) + &trigger("shop", &place.settings(""));
    place.world.configure(&config);
    place.world.push(WEB, 1).await;
    let begun = Instant::now();
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let errors = eventually("a failed attempt", SOON, async || {
        let errors = place.world.errors().await;
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert!(
        errors[0].contains("git took longer than 1 s (timeout_seconds) and was ended"),
        "{errors:?}"
    );
    assert!(begun.elapsed() < SOON);
    service.stop().await;
    eventually("no process of git", SOON, async || {
        let running = Command::new("pgrep")
            .args(["--full", &format!("127.0.0.1:{port}")])
            .output()
            .unwrap();
        running.stdout.is_empty().then_some(())
    })
    .await;
}
