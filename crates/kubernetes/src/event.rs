//! Events on objects, which `kubectl describe` shows.

use kube::core::DynamicObject;
use kube::{Api, api::ApiResource, api::PostParams, core::GroupVersionKind};
use serde_json::{Value, json};
use tagtrail_proto::{Digest, clean_text};
use time::OffsetDateTime;

use crate::cluster::{Cluster, bounded};
use crate::object::ObjectName;
use crate::owners::MANAGER;
use crate::problem::Problem;

/// Most bytes of the text of an event; an API server takes 1 KiB.
const NOTE: usize = 1000;
/// Most bytes of the object's name within the name of an event.
const NAME: usize = 200;

/// An event on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The reason, one word for machines.
    pub reason: &'static str,
    /// Whether a person should act.
    pub warning: bool,
    /// The text for people.
    pub note: String,
    /// The cause of the event: the same reason with the same cause makes one event on an object.
    pub cause: String,
}

impl Cluster {
    /// Records an event on the object with this uid, with `dry_run` only to learn whether it would
    /// be accepted. An event that is there already is a success.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn record(
        &self,
        namespace: &str,
        (object, uid): (&ObjectName, &str),
        event: &Event,
        dry_run: bool,
    ) -> Result<(), Problem> {
        let client = self.client().await?;
        let of = self.resource(&client, object).await?;
        let kind = GroupVersionKind::gvk("events.k8s.io", "v1", "Event");
        let resource = ApiResource::from_gvk_with_plural(&kind, "events");
        let regarding = json!({
            "apiVersion": of.api_version,
            "kind": of.kind,
            "name": object.name,
            "namespace": namespace,
            "uid": uid,
        });
        let text = body(
            &object.name,
            uid,
            event,
            regarding,
            OffsetDateTime::now_utc(),
        );
        let body: DynamicObject = serde_json::from_value(text)
            .map_err(|error| Problem::Access(format!("the event is no object: {error}")))?;
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
        let parameters = PostParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
        };
        match bounded(api.create(&parameters, &body)).await {
            Err(Problem::Other { code: 409, .. }) | Ok(_) => Ok(()),
            Err(problem) => Err(problem),
        }
    }
}

/// Returns an event as the API server takes it.
fn body(name: &str, uid: &str, event: &Event, regarding: Value, at: OffsetDateTime) -> Value {
    let key = format!("{uid} {} {}", event.reason, event.cause);
    let hash = Digest::sha256_of(key.as_bytes()).to_string();
    let hash = hash.trim_start_matches("sha256:");
    let short = &name[..name.floor_char_boundary(NAME)];
    let short = short.trim_end_matches(['.', '-']);
    // Exactly six decimals are required.
    let (date, time) = (at.date(), at.time());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let micros = time.microsecond();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{short}.{}", &hash[..16])},
        "eventTime": format!("{date}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"),
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "action": event.reason,
        "note": clean_text(&event.note, NOTE),
        "reportingController": "tagtrail.dev/trigger",
        "reportingInstance": MANAGER,
        "regarding": regarding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_makes_one_event_and_its_text_is_bounded() {
        let event = |cause: &str, note: &str| Event {
            reason: "TagtrailFailed",
            warning: true,
            note: note.to_owned(),
            cause: cause.to_owned(),
        };
        let at = OffsetDateTime::UNIX_EPOCH;
        let of = |uid: &str, event: &Event| body("web", uid, event, Value::Null, at);
        let one = of("u", &event("r1", "a\u{1b}[31m"));
        assert_eq!(one["eventTime"], "1970-01-01T00:00:00.000000Z");
        assert!(!one["note"].as_str().unwrap().contains('\u{1b}'));
        let name = |value: &Value| value["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(name(&one), name(&of("u", &event("r1", "b"))));
        assert_ne!(name(&one), name(&of("u", &event("r2", "b"))));
        assert_ne!(name(&one), name(&of("v", &event("r1", "b"))));
        let long = of("u", &event("r1", &"x".repeat(5000)));
        assert!(long["note"].as_str().unwrap().len() <= NOTE);
    }
}
