//! Triggers that follow others. The trigger `prod` follows `shop`, of the image `web`.

use std::time::Duration;

use sqlx::types::Json;
use tagtrail_proto::{Gate, Rollout, RolloutState, Waiting};
use tagtrail_testkit::{Answer, SOON, Sink, eventually};

use crate::world::*;

/// A rollout of `prod`: number, state, cause and the digest of the image `web`.
type Row = (i64, String, String, String);

struct Chain {
    world: World,
    prod: Sink,
}

impl Chain {
    async fn new() -> Chain {
        Chain {
            world: World::new().await,
            prod: Sink::start().await,
        }
    }

    /// Configures both triggers; `more` lines are of `prod`.
    fn configure(&self, soak: &str, more: &str) {
        self.world.configure(&format!(
            "{}{}",
            self.upstream(),
            self.downstream(soak, more)
        ));
    }

    fn upstream(&self) -> String {
        format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\ntarget.webhook = {{ url = \"{}\" }}\n",
            self.world.sink.url()
        )
    }

    fn downstream(&self, soak: &str, more: &str) -> String {
        format!(
            "[[trigger]]\nname = \"prod\"\nfollow = {{ trigger = \"shop\", soak = \"{soak}\" }}\ntarget.webhook = {{ url = \"{}\" }}\n{more}\n",
            self.prod.url()
        )
    }

    async fn rollouts(&mut self, trigger: &str) -> Vec<Row> {
        sqlx::query_as(
            "select o.number, o.state::text, o.cause ->> 'reason', o.images -> 'web' ->> 'digest'
             from rollout o join trigger t on t.id = o.trigger_id where t.name = $1 order by o.number",
        )
        .bind(trigger)
        .fetch_all(&mut self.world.sql)
        .await
        .unwrap()
    }

    /// Waits until the last rollout of a trigger has this number, this state and this digest, and
    /// returns its cause.
    async fn wait(&mut self, trigger: &str, number: i64, state: RolloutState, n: u8) -> String {
        let what = format!("rollout {number} of {trigger} to be {state}");
        eventually(&what, SOON, async || {
            let last = self.rollouts(trigger).await.pop()?;
            let expected = (number, state.as_str(), digest(n).to_string());
            let (number, is, cause, of) = last;
            ((number, is.as_str(), of) == expected).then_some(cause)
        })
        .await
    }

    async fn waiting(&mut self) -> Vec<Waiting> {
        let Json(waiting) = sqlx::query_scalar("select waiting from trigger where name = 'prod'")
            .fetch_one(&mut self.world.sql)
            .await
            .unwrap();
        waiting
    }

    /// Records an order as the api does. The set is that of a rollout of the trigger.
    async fn order(
        &mut self,
        trigger: &str,
        cause: &str,
        set_of: Option<i64>,
        skip: &[&str],
    ) -> i64 {
        sqlx::query_scalar(
            "with a as (
                 insert into act (actor, act, trigger, request_id) values ('ann', 'rollout', $1, 'x') returning id)
             insert into rollout_order (act_id, trigger_id, kind, cause, images, skip, actor, reason)
             select a.id, t.id, 'rollout', $2, (select images from rollout o where o.trigger_id = t.id and o.number = $3), $4, 'ann', 'why'
             from a, trigger t where t.name = $1 returning id",
        )
        .bind(trigger)
        .bind(cause)
        .bind(set_of)
        .bind(skip.iter().map(ToString::to_string).collect::<Vec<_>>())
        .fetch_one(&mut self.world.sql)
        .await
        .unwrap()
    }

    /// Rolls a trigger back to the set of a rollout, and pins it, as the api does.
    async fn roll_back(&mut self, trigger: &str, number: i64) {
        self.order(trigger, "rollback", Some(number), &[]).await;
        sqlx::query(
            "insert into hold (kind, triggers, images, actor)
             select 'pin', $1, o.images, 'ann' from rollout o join trigger t on t.id = o.trigger_id where t.name = $1 and o.number = $2",
        )
        .bind(trigger)
        .bind(number)
        .execute(&mut self.world.sql)
        .await
        .unwrap();
    }
}

const SUCCEEDED: RolloutState = RolloutState::Succeeded;

#[tokio::test]
async fn a_set_is_taken_over_once_it_has_lasted_and_one_that_was_replaced_never() {
    let mut chain = Chain::new().await;
    chain.configure("3s", "");
    let service = chain.world.start().await;
    a_while().await;
    let reasons: serde_json::Value =
        sqlx::query_scalar("select reasons from trigger where name = 'prod'")
            .fetch_one(&mut chain.world.sql)
            .await
            .unwrap();
    assert_eq!(reasons[0]["code"], "upstream");

    chain.world.push(WEB, 1).await;
    chain.wait("shop", 1, SUCCEEDED, 1).await;
    let gate = eventually("the closed gate", SOON, async || {
        chain.waiting().await.pop()
    })
    .await;
    assert_eq!(gate.gate, Gate::Upstream);
    assert!(gate.why.contains("rollout 1 of shop"), "{}", gate.why);
    assert!(chain.prod.deliveries().is_empty());
    assert_eq!(chain.wait("prod", 1, SUCCEEDED, 1).await, "start");
    let first = &chain.prod.deliveries()[0].json()["data"];
    assert_eq!(first["images"]["web"]["digest"], digest(1).to_string());
    let lasted = gate.opens_at.unwrap();
    let created: time::OffsetDateTime = sqlx::query_scalar(
        "select o.created_at from rollout o join trigger t on t.id = o.trigger_id where t.name = 'prod'",
    )
    .fetch_one(&mut chain.world.sql)
    .await
    .unwrap();
    assert!(created >= lasted && created < lasted + Duration::from_secs(5));

    // The second set does not last, and the head moves on after the third one has.
    chain.world.push(WEB, 2).await;
    chain.wait("shop", 2, SUCCEEDED, 2).await;
    chain.world.push(WEB, 3).await;
    chain.wait("shop", 3, SUCCEEDED, 3).await;
    // A restart in the middle.
    service.stop().await;
    let service = chain.world.start().await;
    assert_eq!(chain.wait("prod", 2, SUCCEEDED, 3).await, "upstream");
    assert_eq!(chain.rollouts("prod").await.len(), 2);
    assert_eq!(chain.waiting().await, []);
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_upstream_keeps_the_set_that_was_taken_over_and_withdraws_one_that_waits() {
    let mut chain = Chain::new().await;
    chain.configure("0s", "");
    let service = chain.world.start().await;
    for n in 1..=2 {
        chain.world.push(WEB, n).await;
        chain.wait("prod", i64::from(n), SUCCEEDED, n).await;
    }
    chain.roll_back("shop", 1).await;
    chain.wait("shop", 3, SUCCEEDED, 1).await;
    a_while().await;
    assert_eq!(chain.rollouts("prod").await.len(), 2);
    sqlx::query("update hold set released_at = now(), released_by = 'ann'")
        .execute(&mut chain.world.sql)
        .await
        .unwrap();

    // The next set waits at another gate while upstream is rolled back.
    chain.configure("0s", "window = { closed = [\"2000-01-01/2100-01-01\"] }");
    eventually("the window", SOON, async || {
        let settings = "select gate_settings ? 'window' from trigger where name = 'prod'";
        let is_there: bool = sqlx::query_scalar(settings)
            .fetch_one(&mut chain.world.sql)
            .await
            .unwrap();
        is_there.then_some(())
    })
    .await;
    chain.world.push(WEB, 3).await;
    chain.wait("prod", 3, RolloutState::Held, 3).await;
    chain.roll_back("shop", 1).await;
    chain.wait("prod", 3, RolloutState::Superseded, 3).await;
    let error = chain.world.error_of("prod").await.unwrap();
    assert_eq!(error, "not begun: shop was rolled back from these images");
    a_while().await;
    assert_eq!(chain.rollouts("prod").await.len(), 3);
    let deliveries = chain.prod.deliveries();
    let numbers: Vec<_> = deliveries
        .iter()
        .map(|one| one.json()["data"]["number"].clone())
        .collect();
    assert_eq!(numbers, [1, 2]);
    service.stop().await;
}

#[tokio::test]
async fn a_failing_or_removed_upstream_takes_nothing_from_the_trigger_behind_it() {
    let mut chain = Chain::new().await;
    chain.configure("0s", "");
    let service = chain.world.start().await;
    chain.world.push(WEB, 1).await;
    chain.wait("prod", 1, SUCCEEDED, 1).await;
    chain.world.sink.answer(vec![Answer::Status(500); 1000]);
    chain.world.push(WEB, 2).await;
    eventually("an attempt that failed", SOON, async || {
        (chain.world.sink.deliveries().len() >= 3).then_some(())
    })
    .await;
    assert_eq!(chain.rollouts("prod").await.len(), 1);

    // Without its upstream the trigger is broken, and keeps its set.
    chain.world.configure(&chain.downstream("0s", ""));
    let problem: String = eventually("the problem", SOON, async || {
        sqlx::query_scalar::<_, Option<String>>(
            "select problem from trigger where name = 'prod' and broken",
        )
        .fetch_optional(&mut chain.world.sql)
        .await
        .unwrap()
        .flatten()
    })
    .await;
    assert!(
        problem.contains("\"shop\" is the name of no trigger"),
        "{problem}"
    );
    a_while().await;
    assert_eq!(chain.rollouts("prod").await.len(), 1);

    // Upstream comes back and heals: the set that had failed goes on to both.
    chain.world.sink.calm();
    chain.configure("0s", "");
    chain.wait("prod", 2, SUCCEEDED, 2).await;
    service.stop().await;
}

#[tokio::test]
async fn an_order_skips_the_gate_and_a_rollback_behind_it_stays() {
    let mut chain = Chain::new().await;
    chain.configure("1h", "");
    let service = chain.world.start().await;
    chain.world.push(WEB, 1).await;
    chain.wait("shop", 1, SUCCEEDED, 1).await;
    let order = chain.order("prod", "order", None, &[]).await;
    let answer = chain.world.answer(order).await;
    assert!(
        answer.contains("no set of shop that counts has succeeded"),
        "{answer}"
    );
    chain.order("prod", "order", None, &["upstream"]).await;
    assert_eq!(chain.wait("prod", 1, SUCCEEDED, 1).await, "order");
    chain.world.push(WEB, 2).await;
    chain.wait("shop", 2, SUCCEEDED, 2).await;
    chain.order("prod", "order", None, &["upstream"]).await;
    chain.wait("prod", 2, SUCCEEDED, 2).await;
    chain.roll_back("prod", 1).await;
    assert_eq!(chain.wait("prod", 3, SUCCEEDED, 1).await, "rollback");
    chain.configure("0s", "");
    a_while().await;
    assert_eq!(chain.rollouts("prod").await.len(), 3);
    service.stop().await;
}

#[tokio::test]
async fn a_chain_of_three_takes_a_set_over_step_by_step_and_all_waits_for_both() {
    let mut chain = Chain::new().await;
    let (eu, us) = (Sink::start().await, Sink::start().await);
    let follows = |name: &str, follow: &str, sink: &Sink| {
        format!(
            "[[trigger]]\nname = \"{name}\"\nfollow = {{ {follow} }}\ntarget.webhook = {{ url = \"{}\" }}\n",
            sink.url()
        )
    };
    us.answer(vec![Answer::Status(500); 1000]);
    chain.world.configure(&format!(
        "{}{}{}{}",
        follows("prod", "all = [\"eu\", \"us\"]", &chain.prod),
        follows("eu", "trigger = \"shop\"", &eu),
        follows("us", "trigger = \"shop\"", &us),
        chain.upstream(),
    ));
    let service = chain.world.start().await;
    chain.world.push(WEB, 1).await;
    chain.wait("eu", 1, SUCCEEDED, 1).await;
    a_while().await;
    assert!(chain.rollouts("prod").await.is_empty());
    us.calm();
    chain.wait("us", 1, SUCCEEDED, 1).await;
    chain.wait("prod", 1, SUCCEEDED, 1).await;
    let body: Rollout =
        serde_json::from_value(chain.prod.deliveries()[0].json()["data"].clone()).unwrap();
    assert_eq!((body.trigger.as_str(), body.number), ("prod", 1));
    service.stop().await;
}
