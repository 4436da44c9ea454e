//! Triggers with `start = "adopt"`: rollout 1 has the images that the target runs already.

use serde_json::Value;
use sqlx::Row as _;
use tagtrail_proto::RolloutState::{Held, Succeeded};
use tagtrail_testkit::{SOON, eventually};

use crate::kubernetes::{Place, pinned};
use crate::world::*;

impl Place {
    /// Configures a trigger `shop` of this image that adopts what the Deployment `web` runs.
    pub(crate) fn adopt(&self, kubeconfig: &str, image: &str, more: &str) {
        let namespace = &self.namespace;
        self.world.configure(&format!(
            "[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = \"{kubeconfig}\" }}\n\
             [[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nstart = \"adopt\"\nimages.web = {image}\n\
             [trigger.target.kubernetes]\ncluster = \"test\"\nnamespace = \"{namespace}\"\nobjects = [\"deployment/web\"]\n{more}"
        ));
    }

    /// Makes a Deployment `web` that runs this image.
    async fn runs(image: &str) -> Place {
        let place = Place::new().await;
        place.run("Deployment", "web", 1);
        let arguments = ["set", "image", "deployment/web", &format!("web={image}")];
        place.kubectl(&arguments);
        place
    }

    fn admin(&self) -> String {
        self.cluster.kubeconfig().display().to_string()
    }

    /// Writes a kubeconfig of a server that nobody is, and returns its path.
    pub(crate) fn dead_kubeconfig(&self) -> String {
        let admin = std::fs::read_to_string(self.admin()).unwrap();
        let start = admin.find("https://127.0.0.1:").unwrap() + "https://127.0.0.1:".len();
        let end = start + admin[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let path = self.world.folder.path().join("kubeconfig");
        std::fs::write(&path, format!("{}{port}{}", &admin[..start], &admin[end..])).unwrap();
        path.display().to_string()
    }

    /// Returns `(number, attempts, cause, revision, tag)` of all rollouts.
    async fn recorded(&mut self) -> Vec<(i64, i32, String, i64, String)> {
        let rows = sqlx::query(
            "select o.number, o.attempts, o.cause ->> 'reason' as cause, (o.images -> 'web' ->> 'revision')::bigint as revision, o.images -> 'web' ->> 'image' as image
             from rollout o join trigger t on t.id = o.trigger_id where t.name = 'shop' order by o.number",
        )
        .fetch_all(&mut self.world.sql)
        .await
        .unwrap();
        let rows = rows.iter().map(|row| {
            let image: String = row.get("image");
            let tag = image.rsplit_once(':').unwrap().1.to_owned();
            let (number, attempts) = (row.get("number"), row.get("attempts"));
            (number, attempts, row.get("cause"), row.get("revision"), tag)
        });
        rows.collect()
    }

    async fn reasons(&mut self) -> Value {
        sqlx::query_scalar("select reasons from trigger where name = 'shop'")
            .fetch_one(&mut self.world.sql)
            .await
            .unwrap()
    }
}

fn was(
    number: i64,
    attempts: i32,
    cause: &str,
    revision: i64,
    tag: &str,
) -> (i64, i32, String, i64, String) {
    (number, attempts, cause.to_owned(), revision, tag.to_owned())
}

fn exact() -> String {
    format!("\"{WEB}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deployment_runs_is_adopted_and_the_difference_is_rolled_out() {
    let mut place = Place::runs(&pinned(1)).await;
    place.adopt(&place.admin(), &exact(), "");
    place.world.push(WEB, 1).await;
    place.world.push(WEB, 2).await;
    let service = place.world.start().await;
    place.wait(2, Succeeded).await;
    assert_eq!(
        place.recorded().await,
        [
            was(1, 0, "adopted", 1, "latest"),
            was(2, 1, "revision", 2, "latest")
        ]
    );
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wanted_image_is_adopted_without_an_attempt_also_after_a_restart() {
    let mut place = Place::runs(&pinned(1)).await;
    place.adopt(&place.admin(), &exact(), "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    service.stop().await;
    let service = place.world.start().await;
    a_while().await;
    assert_eq!(place.recorded().await, [was(1, 0, "adopted", 1, "latest")]);
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_history_does_not_know_is_adopted_too() {
    let mut place = Place::runs(&pinned(9)).await;
    place.adopt(&place.admin(), &exact(), "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(2, Succeeded).await;
    let rollouts = place.recorded().await;
    assert_eq!(rollouts[0], was(1, 0, "adopted", 0, "latest"));
    assert_eq!(rollouts[1], was(2, 1, "revision", 1, "latest"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_digest_is_rolled_out_and_the_cause_says_why() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.adopt(&place.admin(), &exact(), "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(place.recorded().await, [was(1, 1, "start", 1, "latest")]);
    let why: String = sqlx::query_scalar("select cause ->> 'not_adopted' from rollout")
        .fetch_one(&mut place.world.sql)
        .await
        .unwrap();
    assert_eq!(
        why,
        "web of deployment/web runs registry.example.com/shop/web:latest, which has no digest"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_goes_on_from_the_version_that_runs() {
    let mut place = Place::runs(&pinned(3)).await;
    let policy = "{ repository = \"registry.example.com/shop/web\", semver = { within = \"patch\", from = \"1.2.0\" } }";
    place.adopt(&place.admin(), policy, "");
    for (tag, n) in [("1.2.1", 2), ("1.3.0", 3), ("1.4.0", 4)] {
        let image = format!("registry.example.com/shop/web:{tag}");
        place.world.push(&image, n).await;
    }
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    a_while().await;
    assert_eq!(place.recorded().await, [was(1, 0, "adopted", 1, "1.3.0")]);
    place
        .world
        .push("registry.example.com/shop/web:1.3.1", 5)
        .await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.recorded().await[1], was(2, 1, "revision", 1, "1.3.1"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cluster_delays_its_own_trigger_alone_and_says_so() {
    let mut place = Place::runs(&pinned(1)).await;
    let path = place.dead_kubeconfig();
    let blog = place.world.shop("").replace("\"shop\"", "\"blog\"");
    place.adopt(&path, &exact(), &blog);
    place.world.push(WEB, 1).await;
    place.world.push(WORKER, 1).await;
    let service = place.world.start().await;
    place.world.sink.wait(1).await;
    let reason = eventually("a reason", SOON, async || {
        let reasons = place.reasons().await;
        let reason = reasons.get(0)?.clone();
        let why = reason["why"].as_str()?.to_owned();
        (reason["code"] == "adopting" && why.contains("cluster test")).then_some(reason)
    })
    .await;
    assert!(!reason["since"].is_null(), "{reason}");
    assert_eq!(place.recorded().await, []);
    // The trigger goes on by itself once the cluster answers.
    std::fs::copy(place.admin(), &path).unwrap();
    place.wait(1, Succeeded).await;
    eventually("the adoption", SOON * 2, async || {
        let adopted = [was(1, 0, "adopted", 1, "latest")];
        (place.recorded().await == adopted).then_some(())
    })
    .await;
    eventually("no reason", SOON, async || {
        (place.reasons().await == serde_json::json!([])).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_does_not_wait_for_the_target() {
    let mut place = Place::runs(&pinned(1)).await;
    let path = place.dead_kubeconfig();
    place.adopt(&path, &exact(), "");
    place.world.push(WEB, 2).await;
    let service = place.world.start().await;
    eventually("a reason", SOON, async || {
        (place.reasons().await[0]["code"] == "adopting").then_some(())
    })
    .await;
    let order = place.world.order("rollout", "order", None, false).await;
    assert_eq!(place.world.answer(order).await, "rollout 1 is recorded");
    assert_eq!(place.recorded().await[0].2, "order");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_set_is_rolled_out_and_the_rest_stays_as_it_is() {
    let mut place = Place::new().await;
    let namespace = place.namespace.clone();
    place.cluster.create(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{\
         selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{\
         containers: [{{name: web, image: \" \"}}, {{name: worker, image: \"registry.example.com/shop/worker:first\"}}]}}}}}}}}"
    ));
    let more = "images.worker = \"registry.example.com/shop/worker:latest\"\npartial = true";
    place.adopt(
        &place.admin(),
        &format!("{}\n{more}", exact()),
        "containers.web = [\"web\"]\n",
    );
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let images = |place: &Place| [0, 1].map(|at| place.image("deployment/web", at));
    let first = "registry.example.com/shop/worker:first".to_owned();
    assert_eq!(images(&place), [pinned(1), first]);
    // The other image follows once it is known, and stays when its tag is deleted.
    place.world.push(WORKER, 7).await;
    place.wait(2, Succeeded).await;
    let worker = format!("registry.example.com/shop/worker@{}", digest(7));
    assert_eq!(images(&place), [pinned(1), worker.clone()]);
    place.world.head(WORKER, None, "event").await;
    // A rollout that a hold has delayed is begun by another statement.
    let freeze =
        "insert into hold (kind, triggers, reason, actor) values ('freeze', 'shop', 'why', 'ann')";
    sqlx::query(freeze)
        .execute(&mut place.world.sql)
        .await
        .unwrap();
    place.world.push(WEB, 2).await;
    place.wait(3, Held).await;
    let thaw = "update hold set released_at = now(), released_by = 'ann'";
    sqlx::query(thaw)
        .execute(&mut place.world.sql)
        .await
        .unwrap();
    place.wait(3, Succeeded).await;
    assert_eq!(images(&place), [pinned(2), worker]);
    let reasons = place.reasons().await;
    assert_eq!(reasons[0]["code"], "deleted", "{reasons}");
    let sets: Vec<i32> = sqlx::query_scalar(
        "select (select count(*)::int from jsonb_object_keys(images)) from rollout order by number",
    )
    .fetch_all(&mut place.world.sql)
    .await
    .unwrap();
    assert_eq!(sets, [1, 2, 2]);
    service.stop().await;
}
