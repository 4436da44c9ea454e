//! The target `command`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tagtrail_proto::RolloutState::{Failed, Succeeded};
use tagtrail_testkit::{SOON, eventually};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_rollout_and_the_pinned_images() {
    let mut world = World::new().await;
    // The shell itself sets the three variables that `grep` leaves out; cargo sets CARGO_PKG_NAME
    // and others for this test, which is in the place of the service.
    world.command("cat > body; env | grep -vE '^(PWD|SHLVL|_)=' | sort > environment");
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Succeeded).await;
    let read = |name: &str| std::fs::read_to_string(world.folder.path().join(name)).unwrap();
    let body: serde_json::Value = serde_json::from_str(&read("body")).unwrap();
    let (id, pinned) = (
        body["data"]["id"].as_str().unwrap(),
        format!("registry.example.com/shop/web@{}", digest(1)),
    );
    assert_eq!(body["data"]["images"]["web"]["pinned"], pinned.as_str());
    let usual = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "TRACEPARENT",
    ];
    let environment = read("environment");
    let ours: Vec<&str> = environment
        .lines()
        .filter(|line| {
            let name = line.split('=').next().unwrap();
            !usual.contains(&name) && !name.starts_with("LC_")
        })
        .collect();
    assert_eq!(
        ours,
        [
            &format!("TAGTRAIL_IMAGE_WEB={pinned}"),
            &format!("TAGTRAIL_ROLLOUT_ID={id}"),
            "TAGTRAIL_ROLLOUT_NUMBER=1",
            "TAGTRAIL_TRIGGER=shop",
        ]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_command_is_run_again_and_its_output_is_kept() {
    let mut world = World::new().await;
    world.command("echo out; echo 'no such cluster' >&2; test -e fixed");
    world.push(WEB, 1).await;
    let service = world.start().await;
    let error = eventually("two attempts", SOON, async || {
        let rollouts = world.rollouts().await;
        if rollouts.first()?.2 < 2 {
            None
        } else {
            world.error().await
        }
    })
    .await;
    assert_eq!(
        error,
        "the command ended with exit status: 1: out | no such cluster"
    );
    std::fs::write(world.folder.path().join("fixed"), "").unwrap();
    world.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_its_time_limit_is_killed_with_its_children() {
    let mut world = World::new().await;
    world.command("sh -c 'echo $$ > child; exec sleep 1000' & wait");
    let path = world.folder.path().join("tagtrail.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace(" }", ", timeout_seconds = 1 }")).unwrap();
    world.push(WEB, 1).await;
    let service = world.start().await;
    let error = eventually("an attempt", SOON, async || {
        if world.rollouts().await.is_empty() {
            None
        } else {
            world.error().await
        }
    })
    .await;
    assert_eq!(error, "the command took longer than 1s and was ended");
    service.stop().await;
    gone(&world).await;
}

/// Waits until the child of the command has ended.
pub(crate) async fn gone(world: &World) {
    let child = std::fs::read_to_string(world.folder.path().join("child")).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", child.trim()));
    eventually("the end of the command's child", SOON, async || {
        (!process.exists()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_its_program_has_failed_until_it_is_there() {
    let mut world = World::new().await;
    world.configure(&format!(
        "[[trigger]]\nname = \"shop\"\nimages.web = \"{WEB}\"\ntarget.command = {{ run = [\"./later.sh\"] }}\n"
    ));
    world.push(WEB, 1).await;
    let service = world.start().await;
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert!(error.contains("has no program ./later.sh"), "{error}");
    let program = world.folder.path().join("later.sh");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    world.order_retry().await;
    let not_executable = async || world.error().await.filter(|error| error.contains("chmod"));
    eventually("another cause", SOON, not_executable).await;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    world.order_retry().await;
    world.wait(1, Succeeded).await;
    service.stop().await;
}
