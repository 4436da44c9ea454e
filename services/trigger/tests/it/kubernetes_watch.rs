//! The watches of the target `kubernetes` on a real API server.

use std::time::Duration;

use tagtrail_config::File;
use tagtrail_proto::RolloutState::{Cancelled, Succeeded, Watching};
use tagtrail_testkit::{SOON, TestKubernetes, eventually};
use tagtrail_trigger::LookPace;

use crate::kubernetes::{Place, never_ready, pinned};
use crate::world::*;

/// A pause between looks that no test outlives.
const NEVER: Duration = Duration::from_secs(3600);

impl Place {
    /// A place in the namespace `default` of a cluster of its own.
    pub(crate) async fn alone() -> Place {
        let cluster: &'static TestKubernetes = Box::leak(Box::new(TestKubernetes::start().await));
        Place {
            world: World::new().await,
            namespace: "default".to_owned(),
            cluster,
        }
    }

    /// Returns the sum of a metric of the API server about Deployments, of this verb.
    fn requests(&self, metric: &str, verb: &str) -> u64 {
        let text = self.cluster.kubectl(&["get", "--raw", "/metrics"]);
        let of = |line: &&str| {
            line.starts_with(&format!("{metric}{{"))
                && line.contains("resource=\"deployments\"")
                && line.contains(&format!("verb=\"{verb}\""))
        };
        let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        text.lines().filter(of).map(value).sum()
    }

    /// Returns the findings of the doctor.
    pub(crate) async fn inspected(&self) -> Vec<String> {
        let path = self.world.folder.path().join("tagtrail.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let file = File::parse(&text, &path).unwrap();
        let report = tagtrail_trigger::inspect_target(&file, 0).await.unwrap();
        let problems = report.problems.iter();
        let found = problems.map(|problem| format!("{}; {}", problem.found, problem.cure));
        found.collect()
    }

    /// Waits for the reason of a fault.
    pub(crate) async fn fault(&mut self) -> String {
        eventually("a fault", SOON, async || {
            sqlx::query_scalar(
                "select reason from hold where kind = 'fault' and released_at is null",
            )
            .fetch_optional(&mut self.world.sql)
            .await
            .unwrap()
        })
        .await
    }

    /// Returns the number of faults, released ones included.
    async fn faults(&mut self) -> i64 {
        sqlx::query_scalar("select count(*) from hold where kind = 'fault'")
            .fetch_one(&mut self.world.sql)
            .await
            .unwrap()
    }
}

/// Starts a service that only the watches tell of changes.
async fn start_watching(place: &Place) -> Service {
    place
        .world
        .start_with(PACE, |config| config.look_pace.others = NEVER)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_a_person_is_seen_at_once() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = start_watching(&place).await;
    place.wait(1, Succeeded).await;
    place.kubectl(&[
        "set",
        "image",
        "deployment/web",
        "web=registry.example.com/shop/web:v1",
    ]);
    let fault = place.fault().await;
    assert!(fault.contains("kubectl-set has changed web to"), "{fault}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_succeeds_when_its_pods_run_and_not_at_the_next_look() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place
        .world
        .start_with(PACE, |config| {
            config.look_pace = LookPace {
                first: NEVER,
                longest: NEVER,
                slow: NEVER,
                others: NEVER,
            };
        })
        .await;
    place.wait(1, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_object_costs_one_request_and_its_watch_ends_with_the_trigger() {
    let mut place = Place::alone().await;
    place.run("Deployment", "web", 1);
    let watches = |place: &Place| place.requests("apiserver_longrunning_requests", "WATCH");
    let before = watches(&place);
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = start_watching(&place).await;
    place.wait(1, Succeeded).await;
    assert_eq!(watches(&place), before + 1);
    let total = |place: &Place| {
        let of = |verb| place.requests("apiserver_request_total", verb);
        (of("GET"), of("LIST"), of("PATCH"))
    };
    let (get, list, patch) = total(&place);
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(total(&place), (get, list, patch + 1));
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    // The watch comes back after the API server, and finds a change that was made meanwhile.
    place.cluster.signal_api_server("KILL");
    eventually("a change", SOON * 2, async || {
        let image = "web=registry.example.com/shop/web:v1";
        let arguments = ["set", "image", "deployment/web", image];
        place.cluster.try_kubectl(&arguments, "").ok()
    })
    .await;
    let fault = place.fault().await;
    assert!(fault.contains("kubectl-set has changed web to"), "{fault}");
    place.world.configure("");
    eventually("the end of the watch", SOON, async || {
        (watches(&place) == before).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_watch_objects_are_read_and_the_doctor_says_so() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    let namespace = place.namespace.clone();
    place.cluster.create(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: tagtrail, namespace: {namespace}}}\nrules:\n\
         - {{apiGroups: [apps], resources: [deployments], resourceNames: [web], verbs: [get, patch]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: tagtrail}}\n\
         subjects: [{{kind: ServiceAccount, name: tagtrail, namespace: {namespace}}}]\n"
    ));
    let kubeconfig = place.kubeconfig_of_account(&namespace);
    place.configure_by(&kubeconfig, "[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
    let found = place.inspected().await;
    assert!(
        found.len() == 2
            && found[0].contains("no event can be recorded")
            && found[1].contains("can't be watched")
            && found[1].contains("first reads the object"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_objects_tell_nothing_about_a_rollout_of_earlier_ones() {
    let (mut place, service) = Place::rolled_out(1, "").await;
    place.run("Deployment", "other", 1);
    let toml = place.world.folder.path().join("tagtrail.toml");
    let of = |text: &str, object: &str| text.replace("deployment/web", object);
    let text = std::fs::read_to_string(toml).unwrap();
    let ignored = text.replace(
        "settle = \"0s\"",
        "settle = \"0s\"\non_target_change = \"ignore\"",
    );
    place.world.configure(&of(&ignored, "deployment/other"));
    // The file is read, and the objects are looked at several times.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(place.world.rollouts().await, [(1, Succeeded, 1)]);
    assert_eq!(place.faults().await, 0);
    place.world.configure(&of(&text, "deployment/other"));
    place.wait(2, Succeeded).await;
    // Nor while the result is not known yet.
    place.push_digest(&never_ready()).await;
    place.wait(3, Watching).await;
    place.run("Deployment", "third", 1);
    place.world.configure(&of(&text, "deployment/third"));
    place.wait(4, Watching).await;
    place.wait(3, Cancelled).await;
    assert!(place.image("deployment/third", 0).ends_with(&never_ready()));
    assert_eq!(place.faults().await, 0);
    service.stop().await;
}
