//! The target `command`. Its supervisors are processes of the program `tagtrail`, so the service
//! of these tests is one too.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use tagtrail_proto::RolloutState::{Failed, Succeeded};
use tagtrail_testkit::{SOON, eventually, signal};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_rollout_and_the_pinned_images() {
    let mut world = World::new().await;
    // The shell itself sets the three variables that `grep` leaves out; cargo sets CARGO_PKG_NAME
    // and others for this test, which the service inherits.
    world.command("cat > body; env | grep -vE '^(PWD|SHLVL|_)=' | sort > environment");
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    world.push(WEB, 1).await;
    let _service = world.process();
    world.wait(1, Succeeded).await;
    let body: serde_json::Value = serde_json::from_str(&world.file("body").unwrap()).unwrap();
    let (id, pinned) = (
        body["data"]["id"].as_str().unwrap(),
        format!("registry.example.com/shop/web@{}", digest(1)),
    );
    assert_eq!(body["data"]["images"]["web"]["pinned"], pinned.as_str());
    let epoch = body["data"]["epoch"].as_str().unwrap();
    let usual = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "TRACEPARENT",
    ];
    let environment = world.file("environment").unwrap();
    assert!(environment.contains("\nTRACEPARENT=00-"));
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
            "TAGTRAIL_ATTEMPT=1",
            &format!("TAGTRAIL_EPOCH={epoch}"),
            &format!("TAGTRAIL_IMAGE_WEB={pinned}"),
            &format!("TAGTRAIL_ROLLOUT_ID={id}"),
            "TAGTRAIL_ROLLOUT_NUMBER=1",
            "TAGTRAIL_TRIGGER=shop",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_command_is_run_again_and_its_output_is_kept() {
    let mut world = World::new().await;
    world.command("echo out; echo 'no such cluster' >&2; test -e fixed");
    world.push(WEB, 1).await;
    let _service = world.process();
    eventually("two attempts", SOON, async || {
        let rollouts = world.rollouts().await;
        (rollouts.first()?.2 >= 2).then_some(())
    })
    .await;
    assert_eq!(
        world.error().await.unwrap(),
        "the command ended with exit status: 1: out | no such cluster"
    );
    std::fs::write(world.folder.path().join("fixed"), "").unwrap();
    world.wait(1, Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_its_time_limit_is_ended_with_its_whole_tree() {
    let mut world = World::new().await;
    // One child escapes by a session of its own from a parent that ends; one ignores SIGTERM.
    world.command_with(
        "timeout_seconds = 1\ngrace_seconds = 1",
        "trap 'echo got TERM >> events' TERM
         sh -c \"setsid sh -c 'echo \\$\\$ > child$TAGTRAIL_ATTEMPT; exec sleep 1000' &\"
         sh -c \"trap '' TERM; echo \\$\\$ > deaf$TAGTRAIL_ATTEMPT; while :; do sleep 1; done\" &
         wait; wait",
    );
    world.push(WEB, 1).await;
    let _service = world.process();
    assert_eq!(
        error(&mut world).await,
        "the command took longer than 1 s (timeout_seconds) and was ended"
    );
    // The attempt ends after its processes.
    assert!(!lives(&world, "child1") && !lives(&world, "deaf1"));
    assert_eq!(
        world.file("events").unwrap().lines().next(),
        Some("got TERM")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_child_that_holds_the_pipes_delays_nothing_and_stays() {
    let mut world = World::new().await;
    world.command(
        "echo run >> runs; sh -c 'while sleep 0.1; do echo still here; echo $$ > child; done' &",
    );
    world.push(WEB, 1).await;
    let mut service = world.process();
    let began = Instant::now();
    world.wait(1, Succeeded).await;
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    // Its output has no reader, and it goes on, also after the end of the service.
    let pid = world.written("child").await;
    service.signal("TERM");
    service.ended(SOON).await;
    std::fs::remove_file(world.folder.path().join("child")).unwrap();
    assert_eq!(world.written("child").await, pid);
    signal(pid.trim().parse().unwrap(), "KILL");
    assert_eq!(world.file("runs").unwrap(), "run\n");
    supervisors_gone(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_children_of_a_failed_command_are_ended_and_those_of_a_success_on_request() {
    let mut world = World::new().await;
    world.command_with(
        "leftover = \"end\"",
        "mv child before 2>/dev/null || :
         setsid sh -c 'echo $$ > child; exec sleep 1000' & 
         while ! test -e child; do sleep 0.1; done; test -e before",
    );
    world.push(WEB, 1).await;
    let _service = world.process();
    world.wait(1, Succeeded).await;
    assert_eq!(world.rollouts().await[0].2, 2);
    for name in ["before", "child"] {
        assert!(world.file(name).is_some());
        eventually(name, SOON, async || (!lives(&world, name)).then_some(())).await;
    }
    supervisors_gone(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_of_a_trigger_never_run_at_once_though_the_service_is_killed() {
    let mut world = World::new().await;
    // The command and a grandchild in a session of its own need a while to end.
    world.command(
        "mkdir lock || { echo at once >> mistakes; exit 1; }
         test -e again && { rmdir lock; exit 0; }
         touch again
         trap 'sleep 2; rmdir lock; exit 1' TERM
         setsid sh -c 'trap \"sleep 1; exit\" TERM; echo $$ > child; while :; do sleep 0.1; done' &
         while :; do sleep 0.1; done",
    );
    world.push(WEB, 1).await;
    let mut first = world.process();
    world.written("child").await;
    first.kill();
    let _second = world.process();
    world.wait(1, Succeeded).await;
    assert!(!lives(&world, "child"));
    assert_eq!(world.file("mistakes"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_a_killed_supervisor_are_ended_before_the_next_attempt() {
    let mut world = World::new().await;
    world.command(
        "test -e again && { grep -q 'State:.[RSD]' /proc/$(cat child)/status && echo at once >> mistakes; exit 0; }
         touch again; echo $PPID > supervisor; echo $$ > child; exec sleep 1000",
    );
    world.push(WEB, 1).await;
    let _service = world.process();
    let child = world.written("child").await;
    // A service manager that signals all processes of the service does not stop the supervisor.
    let supervisor = world.file("supervisor").unwrap().trim().parse().unwrap();
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        signal(supervisor, name);
    }
    a_while().await;
    assert_eq!(world.rollouts().await[0].2, 1);
    signal(supervisor, "KILL");
    world.wait(1, Succeeded).await;
    assert!(!lives(&world, "child"), "{child}");
    assert_eq!(world.file("mistakes"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_rollout_ends_the_processes_of_the_unfinished_one_before_it() {
    let mut world = World::new().await;
    world.command(
        "for child in child*; do
             test $child = child-kept && continue
             grep -q 'State:.[RSD]' /proc/$(cat $child)/status && echo $child lives >> mistakes
         done
         case $TAGTRAIL_ROLLOUT_NUMBER in
             1) sh -c 'echo $$ > child-kept; exec sleep 1000' & while ! test -s child-kept; do sleep 0.1; done;;
             2) echo $PPID > supervisor; echo $$ > child; exec sleep 1000;;
         esac",
    );
    world.push(WEB, 1).await;
    let service = world.process();
    world.wait(1, Succeeded).await;
    world.push(WEB, 2).await;
    let child = world.written("child").await;
    service.signal("KILL");
    let supervisor = world.written("supervisor").await.trim().parse().unwrap();
    signal(supervisor, "KILL");
    drop(service);
    // The end of the pause begins the newest rollout, and the one that was cut off is superseded.
    world.switch("paused").await;
    world.push(WEB, 3).await;
    let _service = world.process();
    world.switch("resuming").await;
    world.wait(3, Succeeded).await;
    assert_eq!(world.rollouts().await[1].2, 1);
    assert!(!lives(&world, "child"), "{child}");
    assert_eq!(world.file("mistakes"), None);
    // A process that a success has left behind stays.
    assert!(lives(&world, "child-kept"));
    signal(
        world.file("child-kept").unwrap().trim().parse().unwrap(),
        "KILL",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_by_sigterm_when_the_service_stops() {
    let mut world = World::new().await;
    world.command(
        "trap 'rm lock; echo got TERM >> events; exit 143' TERM
         test -e lock && exit 3; echo $$ > lock; while :; do sleep 0.1; done",
    );
    world.push(WEB, 1).await;
    let mut service = world.process();
    world.written("lock").await;
    service.signal("TERM");
    assert!(service.ended(SOON).await.success());
    assert_eq!(world.written("events").await, "got TERM\n");
    assert_eq!(world.file("lock"), None);
    let _service = world.process();
    world.written("lock").await;
    assert_eq!(world.error().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_exit_code_ends_the_rollout() {
    let mut world = World::new().await;
    world.command_with("final_exit_codes = [78]", "echo retired; exit 78");
    world.push(WEB, 1).await;
    let _service = world.process();
    world.wait(1, Failed).await;
    assert_eq!(
        world.error().await.unwrap(),
        "the command ended with exit status: 78, which is final: retired"
    );
    let ended: bool = sqlx::query_scalar("select ended from rollout")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert!(ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_variables_of_its_own_and_its_secrets_are_not_shown() {
    let mut world = World::new().await;
    std::fs::create_dir(world.folder.path().join("bin")).unwrap();
    let tool = world.folder.path().join("bin/tool");
    std::fs::write(
        &tool,
        "#!/bin/sh\necho tool of $STAGE with $KEY, $LISTED, $HIDDEN\n",
    )
    .unwrap();
    std::fs::set_permissions(&tool, Permissions::from_mode(0o755)).unwrap();
    std::fs::write(world.folder.path().join("key"), "key-0123\n").unwrap();
    world.command_with(
        "environment = [\"LISTED\", \"HID*\"]\nset.STAGE = \"prod\"\nset.KEY = { file = \"key\" }\nset.A = { env = \"LISTED\" }\nset.B = { env = \"HIDDEN\" }\nset.PATH = \"bin:/usr/bin:/bin\"",
        "tool; kill -KILL $$",
    );
    world.push(WEB, 1).await;
    let variables = [
        ("LISTED", "listed-0123"),
        ("HIDDEN", "hidden-0123"),
        ("TAGTRAIL_LOG", "debug"),
    ];
    let service = world.process_with(&variables);
    // A pattern passes on no secret, and all secrets are cut out.
    assert_eq!(
        error(&mut world).await,
        "the command ended with signal: 9 (SIGKILL): tool of prod with …, …,"
    );
    let log = service.log();
    assert!(
        log.contains("output of the command of shop: tool of prod with …, …,"),
        "{log}"
    );
    for secret in ["key-0123", "listed-0123", "hidden-0123"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_as_its_user() {
    let mut world = World::new().await;
    let open = Permissions::from_mode(0o777);
    std::fs::set_permissions(world.folder.path(), open).unwrap();
    world.command_with(
        "user = \"nobody\"",
        "echo $(id -un) $(id -G) $USER > who; setsid sleep 1000 & echo $! > child; exit 1",
    );
    world.push(WEB, 1).await;
    let _service = world.process();
    let error = error(&mut world).await;
    if !rustix::process::geteuid().is_root() {
        assert!(error.contains("can't become the user of"), "{error}");
        return;
    }
    let of_nobody = std::process::Command::new("id")
        .args(["-G", "nobody"])
        .output()
        .unwrap();
    let groups = String::from_utf8(of_nobody.stdout).unwrap();
    assert_eq!(
        world.file("who").unwrap(),
        format!("nobody {} nobody\n", groups.trim())
    );
    eventually("the end", SOON, async || {
        (!lives(&world, "child")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_costs_no_memory() {
    let mut world = World::new().await;
    world.command("head -c 400000000 /dev/zero | tr '\\0' '\\033'; echo the end; exit 1");
    world.push(WEB, 1).await;
    let service = world.process();
    let error = error(&mut world).await;
    assert!(error.ends_with("the end"), "{error}");
    assert!(error.len() < 4096 && !error.contains('\u{1b}'), "{error}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let most = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib: u64 = most.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 120 * 1024, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_its_program_has_failed_until_it_is_there() {
    let mut world = World::new().await;
    world.configure(&format!(
        "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\ntarget.command = {{ run = [\"./later.sh\"] }}\n"
    ));
    world.push(WEB, 1).await;
    let _service = world.process();
    world.wait(1, Failed).await;
    let error = world.error().await.unwrap();
    assert!(error.contains("has no program ./later.sh"), "{error}");
    let program = world.folder.path().join("later.sh");
    std::fs::write(&program, "true\n").unwrap();
    for (mode, expected) in [(0o644, "chmod"), (0o755, "a script begins with")] {
        std::fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        world.order_retry().await;
        let cause = async || world.error().await.filter(|error| error.contains(expected));
        eventually(expected, SOON, cause).await;
    }
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    world.order_retry().await;
    world.wait(1, Succeeded).await;
}

/// Waits for the error of an attempt.
async fn error(world: &mut World) -> String {
    eventually("an attempt", SOON, async || {
        if world.rollouts().await.is_empty() {
            None
        } else {
            world.error().await
        }
    })
    .await
}

/// Returns whether the process whose id a command wrote to this file lives.
fn lives(world: &World, name: &str) -> bool {
    let pid = world.file(name).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until the child of the command has ended.
pub(crate) async fn gone(world: &World) {
    let ended = async || (!lives(world, "child")).then_some(());
    eventually("the end of the command's child", SOON, ended).await;
}

/// Waits until no supervisor of this world is left.
async fn supervisors_gone(world: &World) {
    let folder = world.folder.path().to_str().unwrap();
    let gone = async || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
        let ours = |line: Vec<u8>| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("supervise\0") && line.contains(folder)
        };
        (!lines.any(ours)).then_some(())
    };
    eventually("the end of the supervisors", SOON, gone).await;
}
