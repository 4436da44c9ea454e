//! The conditions of triggers and the reasons about their images, as the api reads them.

use tagtrail_condition::{Facts, Judged, judge};
use tagtrail_proto::ReasonCode as Code;
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_proto::{Condition, Reason};
use tagtrail_testkit::{SOON, eventually};

use crate::world::*;

const API: &str = "registry.example.com/shop/api";

impl World {
    pub(crate) async fn facts(&mut self) -> Facts {
        let mut facts = tagtrail_condition::read(&mut self.sql, Some(&["shop"]))
            .await
            .unwrap();
        facts.pop().unwrap()
    }

    /// Waits for a condition with these reasons, and returns the reasons and the wanted digests.
    async fn judged(
        &mut self,
        condition: Condition,
        codes: &[Code],
    ) -> (Vec<Reason>, Option<Vec<String>>) {
        let what = format!("{condition} {codes:?}");
        eventually(&what, SOON, async || {
            let judged: Judged = judge(&self.facts().await);
            let found: Vec<Code> = judged.reasons.iter().map(|one| one.code).collect();
            let wanted = judged.wanted.map(|wanted| {
                let digests = wanted.values().map(|image| image.digest.to_string());
                digests.collect()
            });
            (judged.condition == condition && found == codes).then_some((judged.reasons, wanted))
        })
        .await
    }

    fn images(&self, images: &str) {
        let secret = self.folder.path().join("secret");
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\n{images}\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n",
            self.sink.url(),
            secret.display(),
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_deleted_tags_are_named_and_a_paused_trigger_shows_what_it_wants() {
    let mut world = World::new().await;
    world.images(&format!("images.web = \"{WEB}\""));
    let service = world.start().await;
    let (reasons, wanted) = world
        .judged(Condition::Waiting, &[Code::UnknownImage])
        .await;
    assert_eq!(reasons[0].image.as_deref(), Some(WEB));
    assert_eq!(wanted, None);
    let since = reasons[0].since;
    assert!(since.is_some());

    world.push(WEB, 1).await;
    world.wait(1, Succeeded).await;
    let (_, wanted) = world.judged(Condition::Settled, &[]).await;
    assert_eq!(wanted, Some(vec![digest(1).to_string()]));

    world.head(WEB, None, "event").await;
    let (reasons, wanted) = world.judged(Condition::Waiting, &[Code::Deleted]).await;
    assert!(
        reasons[0].why.contains(&digest(1).to_string()),
        "{reasons:?}"
    );
    assert_eq!(wanted, None);

    world.switch("paused").await;
    world.push(WEB, 2).await;
    let newer = Some(vec![digest(2).to_string()]);
    eventually("the wanted set", SOON, async || {
        let judged = judge(&world.facts().await);
        let wanted = judged.wanted?;
        (judged.condition == Condition::Paused && wanted["web"].digest == digest(2)).then_some(())
    })
    .await;
    // Never settled between the resume and the rollout.
    world.switch("resuming").await;
    let resumed = judge(&world.facts().await);
    assert_ne!(resumed.condition, Condition::Settled);
    world.wait(2, Succeeded).await;
    assert_eq!(world.judged(Condition::Settled, &[]).await.1, newer);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_shows_why_its_best_tag_is_not_rolled_out() {
    let mut world = World::new().await;
    world.images(&format!(
        "images.api = {{ repository = \"{API}\", semver = \"^1\" }}"
    ));
    let service = world.start().await;
    let (reasons, _) = world
        .judged(Condition::Waiting, &[Code::UnknownImage])
        .await;
    assert_eq!(reasons[0].image.as_deref(), Some(API));
    world.push(&format!("{API}:latest"), 1).await;
    world.judged(Condition::Waiting, &[Code::NoCandidate]).await;
    world.push(&format!("{API}:1.0.0"), 2).await;
    world.wait(1, Succeeded).await;
    world.judged(Condition::Settled, &[]).await;
    let facts = world.facts().await;
    assert_eq!(facts.selections["api"].tag, "1.0.0");
    assert_eq!(facts.policies["api"]["semver"]["range"], "^1");
    world.push(&format!("{API}:1.1.0"), 3).await;
    world.wait(2, Succeeded).await;
    world.head(&format!("{API}:1.1.0"), None, "event").await;
    // The image that runs stays, and is still wanted.
    let (reasons, wanted) = world.judged(Condition::Settled, &[Code::Removed]).await;
    assert!(
        reasons[0].why.contains("the next best tag is 1.0.0"),
        "{reasons:?}"
    );
    assert_eq!(wanted, Some(vec![digest(3).to_string()]));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_age_for_a_manifest_and_for_the_same_build_is_shown() {
    let mut world = World::new().await;
    let policy =
        |more: &str| format!("images.api = {{ repository = \"{API}\", semver = \"^1\", {more} }}");
    world.images(&policy("min_age = \"1h\""));
    world.push(&format!("{API}:1.0.0"), 1).await;
    let service = world.start().await;
    let (reasons, _) = world.judged(Condition::Waiting, &[Code::MinAge]).await;
    assert!(reasons[0].opens_at > reasons[0].since, "{reasons:?}");
    service.stop().await;

    world.images(&policy("platforms = [\"linux/amd64\"]"));
    let service = world.start().await;
    let (reasons, _) = world
        .judged(Condition::Waiting, &[Code::MetadataWait])
        .await;
    assert!(reasons[0].opens_at.is_some() && reasons[0].why.contains("1.0.0"));
    service.stop().await;

    world.images(&format!(
        "agree = \"tag\"\nimages.api = {{ repository = \"{API}\", semver = \"^1\" }}\n\
         images.job = {{ repository = \"registry.example.com/shop/job\", semver = \"^1\" }}"
    ));
    world.push("registry.example.com/shop/job:1.0.1", 2).await;
    let service = world.start().await;
    let (reasons, _) = world.judged(Condition::Waiting, &[Code::NoAgreement]).await;
    assert!(
        reasons[0].why.contains("api 1.0.0, job 1.0.1"),
        "{reasons:?}"
    );
    service.stop().await;
}
