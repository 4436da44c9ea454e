//! The target `kubernetes` beside an API server that refuses, hangs, floods or forgets.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tagtrail_proto::RolloutState::{Running, Succeeded};
use tagtrail_testkit::{SOON, TestKubernetes, eventually, resident};

use crate::kubernetes::{Place, pinned};
use crate::kubernetes_front::{Front, Reply, status};
use crate::world::*;

/// A pause between looks that no test outlives.
const NEVER: Duration = Duration::from_secs(3600);

impl Place {
    /// Runs a Deployment `web`, and configures the trigger `shop` by a server in front of the API
    /// server.
    async fn behind_a_front() -> (Place, Front) {
        Place::new().await.with_a_front().await
    }

    async fn with_a_front(self) -> (Place, Front) {
        let place = self;
        place.run("Deployment", "web", 1);
        let front = Front::start(place.cluster).await;
        let path = place.world.folder.path().join("front.kubeconfig");
        std::fs::write(&path, front.kubeconfig()).unwrap();
        place.configure_by(&path.display().to_string(), "[\"deployment/web\"]", "");
        (place, front)
    }

    /// Waits for the error of an attempt that contains this text.
    pub(crate) async fn fails(&mut self, text: &str) -> String {
        eventually(text, SOON * 3, async || {
            let errors = self.world.errors().await;
            errors.into_iter().find(|error| error.contains(text))
        })
        .await
    }
}

/// Returns the version that a watch begins with.
fn version_in(line: &str) -> u64 {
    let (_, rest) = line.split_once("resourceVersion=").unwrap();
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().unwrap()
}

fn is_watch(line: &str) -> bool {
    line.contains("watch=true") || line.contains("watch=1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_version_is_gone_begins_anew_and_misses_nothing() {
    for in_stream in [true, false] {
        let (mut place, front) = Place::behind_a_front().await;
        let watches = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&watches);
        front.rule(move |line, _| {
            if !is_watch(line) {
                return Reply::Forward;
            }
            // The first watch ends by itself. Its version is too old for the second one.
            match (count.fetch_add(1, SeqCst), in_stream) {
                (0, _) => Reply::Answer(200, String::new(), 6),
                (1, true) => {
                    let gone = status(410, "Expired");
                    Reply::Answer(
                        200,
                        format!("{{\"type\":\"ERROR\",\"object\":{gone}}}\n"),
                        0,
                    )
                }
                (1, false) => Reply::Answer(410, status(410, "Expired"), 0),
                _ => Reply::Forward,
            }
        });
        place.world.push(WEB, 1).await;
        let service = place
            .world
            .start_with(PACE, |config| config.look_pace.others = NEVER)
            .await;
        place.wait(1, Succeeded).await;
        let image = "web=registry.example.com/shop/web:v1";
        place.kubectl(&["set", "image", "deployment/web", image]);
        let fault = place.fault().await;
        assert!(fault.contains("kubectl-set has changed web to"), "{fault}");
        assert!(watches.load(SeqCst) > 2);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_version_etcd_has_compacted_begins_anew_and_misses_nothing() {
    // Without its cache, the API server asks etcd for the changes since a version.
    let flags = ["--watch-cache=false", "--etcd-compaction-interval=1s"];
    let cluster = TestKubernetes::start_with(&flags).await;
    let place = Place {
        world: World::new().await,
        namespace: "default".to_owned(),
        cluster: Box::leak(Box::new(cluster)),
    };
    let (mut place, front) = place.with_a_front().await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    front.rule(move |line, _| {
        if !is_watch(line) {
            return Reply::Forward;
        }
        let mut seen = seen.lock().unwrap();
        seen.push(line.to_owned());
        // The first watch reports nothing, and ends.
        match seen.len() {
            1 => Reply::Answer(200, String::new(), 20),
            _ => Reply::Forward,
        }
    });
    place.world.push(WEB, 1).await;
    let service = place
        .world
        .start_with(PACE, |config| config.look_pace.others = NEVER)
        .await;
    let version = eventually("a watch", SOON, async || {
        lines.lock().unwrap().first().map(|line| version_in(line))
    })
    .await;
    let path = format!(
        "/apis/apps/v1/namespaces/default/deployments?watch=1&timeoutSeconds=1&resourceVersion={version}"
    );
    eventually("a compaction", SOON * 2, async || {
        // Versions grow with each change of the cluster.
        place.kubectl(&[
            "annotate",
            "--overwrite",
            "namespace/default",
            &format!("now={:?}", std::time::Instant::now()),
        ]);
        let answer = place.cluster.try_kubectl(&["get", "--raw", &path], "");
        let (Ok(text) | Err(text)) = answer;
        (text.contains("compacted") || text.contains("Expired")).then_some(())
    })
    .await;
    assert_eq!(lines.lock().unwrap().len(), 1);
    eventually(
        "the watch after the one that etcd refuses",
        SOON * 3,
        async || (lines.lock().unwrap().len() > 2).then_some(()),
    )
    .await;
    let versions: Vec<u64> = lines
        .lock()
        .unwrap()
        .iter()
        .map(|line| version_in(line))
        .collect();
    assert!(
        versions[1] == version && versions[2] > version,
        "{versions:?}"
    );
    let image = "web=registry.example.com/shop/web:v1";
    place.kubectl(&["set", "image", "deployment/web", image]);
    let fault = place.fault().await;
    assert!(fault.contains("kubectl-set has changed web to"), "{fault}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_an_end_take_bounded_memory_and_delay_their_own_trigger_alone() {
    let (mut place, front) = Place::behind_a_front().await;
    let path = place.world.folder.path().join("tagtrail.toml");
    let both = std::fs::read_to_string(&path).unwrap()
        + &place.world.shop("").replace("\"shop\"", "\"blog\"");
    place.world.configure(&both);
    front.rule(|line, _| match is_watch(line) {
        true => Reply::Flood("x"),
        false if line.starts_with("PATCH") => Reply::Flood("{\"items\":["),
        false => Reply::Forward,
    });
    place.world.push(WEB, 1).await;
    place.world.push(WORKER, 1).await;
    let resident = || resident(std::process::id()).unwrap() / 1024;
    let before = resident();
    let service = place.world.start().await;
    place.world.sink.wait(1).await;
    place.fails("no answer of the API server").await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 600, "{grown} MiB more");
    front.rule(|_, _| Reply::Forward);
    eventually("the success", SOON * 3, async || {
        let image = place.image("deployment/web", 0);
        (image == pinned(1)).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_api_server_is_asked_again_after_its_pause() {
    let (mut place, front) = Place::behind_a_front().await;
    front.rule(|line, _| match line.starts_with("PATCH") {
        true => Reply::Answer(429, status(429, "TooManyRequests"), 0),
        false => Reply::Forward,
    });
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let error = place.fails("is busy").await;
    assert!(error.contains("so it is"), "{error}");
    place.wait(1, Running).await;
    front.rule(|_, _| Reply::Forward);
    place.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_api_server_fails_attempts_in_bounded_time_and_loses_no_rollout() {
    let (mut place, front) = Place::behind_a_front().await;
    front.rule(|_, _| Reply::Silence);
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.fails("none within 15 s").await;
    front.rule(|_, _| Reply::Forward);
    eventually("the success", SOON * 4, async || {
        let rollouts = place.world.rollouts().await;
        (rollouts.first()?.1 == Succeeded).then_some(())
    })
    .await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_objects_to_adoption_does_not_fail_the_rollout() {
    let (mut place, front) = Place::behind_a_front().await;
    let image = format!("web={}", pinned(1));
    place.kubectl(&["set", "image", "deployment/web", &image]);
    front.rule(|line, head| {
        let apply = line.starts_with("PATCH") && head.contains("apply-patch");
        match apply {
            true => Reply::Answer(409, status(409, "Conflict"), 0),
            false => Reply::Forward,
        }
    });
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let said = place.world.said().await;
    assert!(
        said[0].contains("Tagtrail does not own them before its first change: the API server answered 409: so it is"),
        "{said:?}"
    );
    front.rule(|_, _| Reply::Forward);
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_and_rights_that_are_missing_are_named_and_heal() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    let namespace = place.namespace.clone();
    let account = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n"
    );
    place.cluster.create(&account);
    let kubeconfig = place.kubeconfig_of_account(&namespace);
    place.configure_by(&kubeconfig, "[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    // An account without a right in the namespace.
    let error = place.fails("no right to change deployment/web").await;
    assert!(error.contains("has the Role"), "{error}");
    place.cluster.create(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}\n\
         subjects: [{{kind: ServiceAccount, name: tagtrail, namespace: {namespace}}}]\n"
    ));
    // Nobody has to say that the right is there now.
    place.wait(1, Succeeded).await;
    // The token ends with its account. A new one is read from the file, without a restart.
    place.kubectl(&["delete", "serviceaccount", "tagtrail"]);
    eventually("the end of the token", SOON * 2, async || {
        let arguments = ["--kubeconfig", &kubeconfig, "get", "--raw", "/api"];
        place.cluster.try_kubectl(&arguments, "").err()
    })
    .await;
    place.world.push(WEB, 2).await;
    place.fails("does not accept the credentials").await;
    place.cluster.create(&account);
    place.kubeconfig_of_account(&namespace);
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_deleted_and_made_again_is_found() {
    let (mut place, service) = Place::rolled_out(1, "").await;
    place.kubectl(&["delete", "deployment/web"]);
    place.world.push(WEB, 2).await;
    place.fails("deployments.apps \"web\" not found").await;
    place.run("Deployment", "web", 1);
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_deleted_between_two_patches_takes_the_first_change_back() {
    let (mut place, front) = Place::behind_a_front().await;
    place.run("Deployment", "worker", 1);
    let path = place.world.folder.path().join("front.kubeconfig");
    let objects = "[\"deployment/web\", \"deployment/worker\"]";
    place.configure_by(&path.display().to_string(), objects, "");
    front.rule(|line, _| {
        let patch = line.starts_with("PATCH") && line.contains("/worker");
        match patch && !line.contains("dryRun") {
            true => Reply::Answer(404, status(404, "NotFound"), 0),
            false => Reply::Forward,
        }
    });
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.fails("deployment/worker in namespace").await;
    for object in ["deployment/web", "deployment/worker"] {
        let image = place.image(object, 0);
        assert_eq!(image, "registry.example.com/shop/web:latest", "{object}");
    }
    front.rule(|_, _| Reply::Forward);
    place.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_stops_answering_and_is_killed_delays_rollouts_alone() {
    let mut place = Place::new().await;
    let own: &'static TestKubernetes = Box::leak(Box::new(TestKubernetes::start().await));
    (place.cluster, place.namespace) = (own, "default".to_owned());
    place.run("Deployment", "web", 1);
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    own.signal_api_server("STOP");
    place.world.push(WEB, 2).await;
    place.fails("no answer of the API server").await;
    own.signal_api_server("CONT");
    place.wait(2, Succeeded).await;
    for n in 3..=4 {
        own.signal_api_server("KILL");
        place.world.push(WEB, n).await;
        place.wait(i64::from(n), Succeeded).await;
        assert_eq!(place.image("deployment/web", 0), pinned(n));
    }
    service.stop().await;
}
