//! The target `git` on real repositories.

mod hostile;
mod https;
mod races;
mod repository;
mod reverts;
mod ssh;

use tagtrail_proto::RolloutState::{self, AwaitingApproval, Failed, Succeeded, Watching};
use tagtrail_testkit::{SOON, eventually};

use crate::world::*;
use repository::Repository;

/// A world whose triggers act on a repository.
struct Place {
    world: World,
    repository: Repository,
}

/// A file of the branch, as people write it.
const WEB_YAML: &str = "# The shop.\r\nspec:\r\n  containers:\r\n  - name:  web\r\n    image: registry.example.com/shop/web:1 # {\"$imagepolicy\": \"shop:web\"}\r\n  - name: other\r\n    image: other:2   # stays\r\n\r\n";

fn with_digest(text: &str, n: u8) -> String {
    let pinned = format!("registry.example.com/shop/web@{}", digest(n));
    text.replace("registry.example.com/shop/web:1", &pinned)
}

/// Returns a trigger `name` of the image `web` with these settings of the target.
fn trigger(name: &str, settings: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\n[trigger.target.git]\n{settings}\n"
    )
}

impl Place {
    /// Makes a repository with one file, and a trigger `shop` with further settings.
    async fn new(more: &str) -> Place {
        let world = World::new().await;
        let repository = Repository::new();
        repository.write(&[("prod/web.yaml", WEB_YAML)], "first");
        let place = Place { world, repository };
        place.configure(more);
        place
    }

    /// Starts the service, and waits until the first rollout has succeeded.
    async fn rolled_out(more: &str) -> (Place, Service) {
        let mut place = Place::new(more).await;
        place.world.push(WEB, 1).await;
        let service = place.world.start().await;
        place.wait(1, Succeeded).await;
        (place, service)
    }

    fn configure(&self, more: &str) {
        self.world.configure(&trigger("shop", &self.settings(more)));
    }

    fn settings(&self, more: &str) -> String {
        let url = self.repository.url();
        format!("url = \"{url}\"\nbranch = \"main\"\npath = \"prod\"\n{more}")
    }

    async fn wait(&mut self, number: i64, state: RolloutState) {
        eventually(&format!("rollout {number} {state}"), SOON * 2, async || {
            let rollouts = self.world.rollouts().await;
            let found = rollouts.iter().any(|row| (row.0, row.1) == (number, state));
            found.then_some(())
        })
        .await;
    }

    /// Waits until an attempt has failed, and returns its error.
    async fn refused(&mut self) -> String {
        self.wait(1, Failed).await;
        self.world.error().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_one_commit_that_changes_the_marked_values_alone() {
    let (mut place, service) =
        Place::rolled_out("author = \"Deployer <deploy@example.com>\"").await;
    let repository = &place.repository;
    assert_eq!(
        repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    assert_eq!(repository.count("main"), 2);
    let message = repository.git(&["log", "-1", "--format=%an <%ae>%n%B", "main"]);
    let id: String = sqlx::query_scalar("select id::text from rollout")
        .fetch_one(&mut place.world.sql)
        .await
        .unwrap();
    let expected = format!(
        "Deployer <deploy@example.com>\nRoll out shop #1: {WEB}\n\nweb: {WEB}, revision 1\n  registry.example.com/shop/web@{}\n\nTagtrail-Rollout: {id}",
        digest(1)
    );
    assert_eq!(message.trim(), expected);
    // The branch has the images already: no second commit.
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    place
        .repository
        .write(&[("prod/web.yaml", &with_digest(WEB_YAML, 3))], "by hand");
    place.world.push(WEB, 3).await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.repository.count("main"), 4);
    let said = place.world.said().await;
    assert!(
        said[0].contains("prod/web.yaml: line 5: registry.example.com/shop/web:1 → "),
        "{said:?}"
    );
    assert_eq!(said[2], "the branch had the images already\n");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_objects_a_rollout_succeeds_when_the_images_have_arrived() {
    let other = crate::kubernetes::Place::new().await;
    other.run("Deployment", "web", 1);
    other.kubectl(&[
        "patch",
        "deployment/web",
        "--type=merge",
        "-p",
        "{\"spec\":{\"progressDeadlineSeconds\":3}}",
    ]);
    let place = Place::new("").await;
    let (kubeconfig, namespace) = (other.cluster.kubeconfig(), &other.namespace);
    let objects =
        format!("cluster = \"test\"\nnamespace = \"{namespace}\"\nobjects = [\"deployment/web\"]");
    let cluster =
        format!("[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = {kubeconfig:?} }}\n");
    let text = cluster + &trigger("shop", &place.settings(&objects));
    place.world.configure(&text);
    let mut place = place;
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Watching).await;
    eventually("the place without the image", SOON, async || {
        let seen: Option<String> = sqlx::query_scalar("select seen from rollout")
            .fetch_one(&mut place.world.sql)
            .await
            .unwrap();
        seen.filter(|seen| {
            seen.contains(
                "deployment/web: web has registry.example.com/shop/web:latest, and not yet ",
            )
        })
    })
    .await;
    // Another system brings the image there.
    let bring = |digest: &str| {
        let image = format!("web=registry.example.com/shop/web@{digest}");
        other.kubectl(&["set", "image", "deployment/web", &image]);
    };
    bring(&digest(1).to_string());
    place.wait(1, Succeeded).await;
    let bad = crate::kubernetes::no_image();
    let image = Some(bad.parse().unwrap());
    place
        .world
        .head_with(WEB, image, "event", ("event", 0))
        .await;
    place.wait(2, Watching).await;
    bring(&bad);
    place.wait(2, Failed).await;
    let error = place.world.error().await.unwrap();
    assert!(error.contains("ImagePullBackOff"), "{error}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commit_names_who_pushed_and_who_approved() {
    let mut place = Place::new("").await;
    let settings = place.settings("");
    let text = trigger("shop", &settings);
    let text = text.replace("settle = ", "approvals = { needs = 2 }\nsettle = ");
    place.world.configure(&text);
    place.world.push(WEB, 1).await;
    sqlx::raw_sql("alter table push disable trigger all; update push set actor = 'robot'")
        .execute(&mut place.world.sql)
        .await
        .unwrap();
    let service = place.world.start().await;
    place.wait(1, AwaitingApproval).await;
    for person in ["ann", "bob"] {
        place.world.verdict(1, person, "approved").await;
    }
    place.wait(1, Succeeded).await;
    let message = place.repository.git(&["log", "-1", "--format=%B", "main"]);
    let expected = format!(
        "web: {WEB}, revision 1, pushed by robot\n  registry.example.com/shop/web@{}\napproved by ann, bob\n",
        digest(1)
    );
    assert!(message.contains(&expected), "{message}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_files_have_is_adopted_and_the_difference_is_one_commit() {
    let mut place = Place::new("").await;
    let adopting = |place: &Place| {
        let settings = place.settings("");
        let text = trigger("shop", &settings);
        text.replace("settle = ", "start = \"adopt\"\nsettle = ")
    };
    let files = [("prod/web.yaml", &*with_digest(WEB_YAML, 1))];
    place.repository.write(&files, "a digest");
    place.world.configure(&adopting(&place));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    let rollouts = place.world.rollouts().await;
    assert_eq!(rollouts, [(1, Succeeded, 0), (2, Succeeded, 1)]);
    assert_eq!(place.repository.count("main"), 3);
    service.stop().await;
    // A tag is no image that can be adopted.
    let mut place = Place::new("").await;
    place.world.configure(&adopting(&place));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let why: String = sqlx::query_scalar("select cause ->> 'not_adopted' from rollout")
        .fetch_one(&mut place.world.sql)
        .await
        .unwrap();
    assert!(why.ends_with("the image web has no digest there"), "{why}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_due_goes_into_few_commits() {
    let mut place = Place::new("").await;
    let names: Vec<String> = (0..8).map(|n| format!("team{n}")).collect();
    let marked = |name: &str| format!("image: x # {{\"$imagepolicy\": \"{name}:web\"}}\n");
    let files: Vec<(String, String)> = names
        .iter()
        .map(|name| (format!("prod/{name}.yaml"), marked(name)))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    place.repository.write(&files, "teams");
    let mut config: String = names
        .iter()
        .map(|name| trigger(name, &place.settings("")))
        .collect();
    // One team's mistake stops no other.
    config += &trigger("broken", &place.settings(""));
    place.world.configure(&config);
    place.world.push(WEB, 1).await;
    // A slow server, so that attempts wait.
    place.repository.hook("pre-receive", "sleep 1");
    let service = place.world.start().await;
    eventually("all rollouts", SOON * 3, async || {
        let rollouts = place.world.rollouts().await;
        let done = rollouts.iter().filter(|row| row.1 == Succeeded).count();
        (done == names.len()).then_some(())
    })
    .await;
    for name in &names {
        let text = place.repository.read("main", &format!("prod/{name}.yaml"));
        assert!(text.contains(&digest(1).to_string()), "{text}");
    }
    // The first one begins alone, and those that wait go together.
    let commits = place.repository.count("main") - 2;
    assert!((1..=4).contains(&commits), "{commits} commits");
    let message = place.repository.git(&["log", "-1", "--format=%B", "main"]);
    assert!(
        message.matches("Tagtrail-Rollout: ").count() > 1,
        "{message}"
    );
    let broken = place.world.error_of("broken").await.unwrap();
    assert!(
        broken.contains("has a marker of the image web; end the line"),
        "{broken}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_marker_or_branch_is_refused_with_its_cure() {
    let mut place = Place::new("markers.web = \"flux-system:web\"").await;
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let error = place.refused().await;
    assert!(
        error.contains("no YAML file below prod has a marker of the image web; end the line of its value with # {\"$imagepolicy\": \"flux-system:web\"}"),
        "{error}"
    );
    service.stop().await;
    let mut place = Place::new("").await;
    let settings = place.settings("").replace("main", "production");
    place.world.configure(&trigger("shop", &settings));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let error = place.refused().await;
    assert!(
        error.ends_with("create the branch, or correct branch"),
        "{error}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kustomization_and_values_of_a_chart_get_the_digest() {
    let edits = "edits = [\"kustomize\", { yaml = \"chart/values.yaml\", at = \"image.digest\", write = \"digest\" }]\n\
                 message = \"deploy({{ trigger }}): {{ images.web.image }}\"";
    let mut place = Place::new(edits).await;
    let kustomization = "images:\n- name: registry.example.com/shop/web # here\n  newTag: old\n";
    let values = "image:\n    digest: \"\" # here\nother: {a: b}\n";
    let files = [
        ("prod/kustomization.yaml", kustomization),
        ("prod/chart/values.yaml", values),
    ];
    place.repository.write(&files, "chart");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let (repository, digest) = (&place.repository, digest(1));
    assert_eq!(
        repository.read("main", "prod/kustomization.yaml"),
        kustomization.replace("old", "latest") + &format!("  digest: {digest}\n")
    );
    assert_eq!(
        repository.read("main", "prod/chart/values.yaml"),
        values.replace("\"\"", &format!("\"{digest}\""))
    );
    let message = repository.git(&["log", "-1", "--format=%s", "main"]);
    assert_eq!(message.trim(), format!("deploy(shop): {WEB}"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_goes_to_a_branch_of_the_trigger_and_keeps_commits_of_people() {
    let (mut place, service) = Place::rolled_out("push = \"branch\"").await;
    assert_eq!(place.repository.read("main", "prod/web.yaml"), WEB_YAML);
    let read = |place: &Place| place.repository.read("tagtrail/shop", "prod/web.yaml");
    assert_eq!(read(&place), with_digest(WEB_YAML, 1));
    // The next one replaces it.
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(read(&place), with_digest(WEB_YAML, 2));
    assert_eq!(place.repository.count("tagtrail/shop"), 2);
    // A commit of a person stays.
    place.repository.write_to(
        "tagtrail/shop",
        &[("prod/note.txt", "checked\n")],
        "by hand",
    );
    place.world.push(WEB, 3).await;
    place.wait(3, Succeeded).await;
    assert_eq!(read(&place), with_digest(WEB_YAML, 3));
    assert_eq!(place.repository.count("tagtrail/shop"), 4);
    assert_eq!(
        place.repository.read("tagtrail/shop", "prod/note.txt"),
        "checked\n"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_the_branch_without_an_effect() {
    let place = Place::new("").await;
    let inspect = async || {
        let path = place.world.folder.path().join("tagtrail.toml");
        let file = tagtrail_config::File::load(&path).unwrap();
        tagtrail_trigger::inspect_target(&file, 0).await.unwrap()
    };
    let report = inspect().await;
    // The files have a tag, and no digest yet.
    assert_eq!((report.problems, report.images), (Vec::new(), None));
    place
        .repository
        .write(&[("prod/web.yaml", &with_digest(WEB_YAML, 7))], "digest");
    let report = inspect().await;
    assert_eq!(report.images.unwrap()["web"].digest, digest(7));
    assert_eq!(place.repository.count("main"), 2);
    for (settings, expected) in [
        (
            "markers.web = \"other:web\"",
            "has a marker of the image web; end the line",
        ),
        (
            "edits = [\"kustomize\"]",
            "has no file prod/kustomization.yaml",
        ),
    ] {
        place.configure(settings);
        let problems = inspect().await.problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].fatal && problems[0].found.contains(expected),
            "{problems:?}"
        );
    }
    let missing = place.settings("").replace("repository.git", "no-such.git");
    place.world.configure(&trigger("shop", &missing));
    let problems = inspect().await.problems;
    assert!(problems[0].cure.starts_with("check url"), "{problems:?}");
}
