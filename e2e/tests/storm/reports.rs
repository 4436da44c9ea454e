//! The receiver that reports results later, and the person who approves images after a storm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tagtrail_testkit::Answer;
use tokio::time::sleep;

use crate::people::People;
use crate::teams::{APPROVED, REJECTED, REPORTED};
use crate::world::World;

impl People {
    /// Approves or rejects a rollout that waits for it.
    pub(crate) async fn judge(&self, verdict: &str, random: &mut StdRng) -> Option<()> {
        let waiting = self.get("approvals").await?;
        let one = waiting["items"].as_array()?.choose(random)?;
        let id = one["rollout"]["id"].as_str()?;
        let because = json!({ "reason": "the storm" });
        let path = format!("rollouts/{id}/{verdict}");
        self.post(&path, &because).await.map(drop)
    }

    /// Reports results of the rollouts in some state.
    async fn report(&self, rollouts: &str, results: &[&str], random: &mut StdRng) -> Option<()> {
        let path = format!("rollouts?trigger={REPORTED}&state={rollouts}");
        for rollout in self.get(&path).await?["items"].as_array()? {
            let id = rollout["id"].as_str()?;
            let report = json!({ "state": results.choose(random)?, "text": "the storm" });
            self.post(&format!("rollouts/{id}/outcome"), &report).await;
        }
        Some(())
    }

    /// Approves or rejects all that waits for approvals of a trigger.
    async fn judge_all(&self, trigger: &str, verdict: &str) -> Option<()> {
        let waiting = self.get(&format!("approvals?trigger={trigger}")).await?;
        for one in waiting["items"].as_array()? {
            let id = one["rollout"]["id"].as_str()?;
            let because = json!({ "reason": "the storm is over" });
            self.post(&format!("rollouts/{id}/{verdict}"), &because)
                .await;
        }
        Some(())
    }
}

/// Reports results for ever: any during the storm, and the success of each rollout when it is over.
/// From then on, also approves the images of one trigger, and rejects those of another one.
pub(crate) async fn report(world: Arc<World>, seed: u64, is_over: Arc<AtomicBool>) {
    let people = People::new(world);
    let mut random = StdRng::seed_from_u64(seed ^ 0x0e90_2741);
    loop {
        let slowest = if is_over.load(Ordering::Relaxed) {
            600
        } else {
            4000
        };
        sleep(Duration::from_millis(random.random_range(100..slowest))).await;
        match is_over.load(Ordering::Relaxed) {
            true => {
                for state in ["watching", "failed", "running"] {
                    people.report(state, &["succeeded"], &mut random).await;
                }
                people.judge_all(APPROVED, "approve").await;
                people.judge_all(REJECTED, "reject").await;
            }
            false => {
                let results = ["succeeded", "succeeded", "progressing", "failed"];
                people.report("watching", &results, &mut random).await;
            }
        }
    }
}

/// The next answers of the address that a step of `verify` asks.
pub(crate) fn health(random: &mut StdRng) -> Vec<Answer> {
    let count = random.random_range(1..6);
    let answer = |random: &mut StdRng| match random.random_range(0..4) {
        0 => Answer::Status(200),
        1 => Answer::Status(503),
        2 => Answer::Late(Duration::from_secs(5), 503),
        _ => Answer::Late(Duration::from_secs(1), 500),
    };
    (0..count).map(|_| answer(random)).collect()
}
