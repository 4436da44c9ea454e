//! The events of the target `kubernetes` on a real API server.

use serde_json::Value;
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, eventually};

use crate::kubernetes::Place;
use crate::world::*;

impl Place {
    /// Waits for the one event with this reason, and returns it.
    pub(crate) async fn event(&self, reason: &str) -> Value {
        eventually(&format!("the event {reason}"), SOON, async || {
            let arguments = ["get", "events.v1.events.k8s.io", "--output=json"];
            let all: Value = serde_json::from_str(&self.kubectl(&arguments)).unwrap();
            let all = all["items"].as_array().unwrap().iter();
            let found: Vec<&Value> = all.filter(|event| event["reason"] == reason).collect();
            assert!(found.len() < 2, "{found:?}");
            found.first().copied().cloned()
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_a_failure_and_a_hold_are_events_of_the_object() {
    let (place, service) = Place::rolled_out(1, "").await;
    let event = place.event("TagtrailRollout").await;
    let note = event["note"].as_str().unwrap();
    let expected = "rollout 1 of trigger shop: web: registry.example.com/shop/web:latest → ";
    assert!(note.starts_with(expected), "{note}");
    assert_eq!(event["type"], "Normal");
    // So kubectl finds it for the object.
    let object = place.cluster.get(&place.namespace, "deployment/web");
    assert_eq!(event["regarding"]["uid"], object["metadata"]["uid"]);
    let described = place.kubectl(&["describe", "deployment/web"]);
    assert!(described.contains("TagtrailRollout"), "{described}");

    let undo = ["rollout", "undo", "deployment/web"];
    place.kubectl(&undo);
    let event = place.event("TagtrailHeld").await;
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("kubectl has changed web to") && note.contains("tagtrail release shop"),
        "{note}"
    );
    assert_eq!(event["type"], "Warning");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rollout_is_one_event_with_its_reason() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    let service = place.without_image().await;
    let event = place.event("TagtrailFailed").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("ImagePullBackOff"), "{note}");
    // Further looks at the failed rollout are no further events.
    a_while().await;
    place.event("TagtrailFailed").await;
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    service.stop().await;
}
