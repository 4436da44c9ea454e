//! The checks of rollouts after a storm.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sqlx::{PgConnection, Row as _};
use tagtrail_e2e::SIGNING_SECRET;
use tagtrail_proto::{Event, Rollout};

use crate::checks::{Tag, scalar};
use crate::oracle::{RecordedRevision, in_force};
use crate::world::{TRIGGERS, World};

/// Checks that each trigger's last rollout has the images' heads, that each image of a rollout is a
/// revision, and that the deliveries to the target match the recorded rollouts.
pub(crate) async fn rollouts(
    world: &World,
    db: &mut PgConnection,
    stored: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<(i64, usize), String> {
    let rows = sqlx::query(
        "select o.id::text as id, t.name as trigger, o.number, o.state::text as state, o.images, o.attempts,
             coalesce(o.error like 'not begun: %', false) as withdrawn
         from rollout o join trigger t on t.id = o.trigger_id order by t.name, o.number",
    )
    .fetch_all(db)
    .await
    .map_err(|error| error.to_string())?;
    let mut recorded: HashMap<String, (String, i64, serde_json::Value)> = HashMap::new();
    let mut last: BTreeMap<String, (i64, String, serde_json::Value)> = BTreeMap::new();
    let mut made: BTreeMap<String, Vec<Made>> = BTreeMap::new();
    for row in &rows {
        let (id, trigger): (String, String) = (row.get("id"), row.get("trigger"));
        let (number, state): (i64, String) = (row.get("number"), row.get("state"));
        let images: serde_json::Value = row.get("images");
        let before = last.get(&trigger).map_or(0, |before| before.0);
        if number != before + 1 {
            return Err(format!(
                "rollout {number} of {trigger} comes after {before}"
            ));
        }
        for image in images
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, image)| image)
        {
            let right = stored
                .iter()
                .any(|((registry, repository, tag), revisions)| {
                    image["image"] == format!("{registry}/{repository}:{tag}")
                        && revisions.iter().any(|revision| {
                            image["revision"] == revision.number
                                && image["digest"].as_str() == revision.digest.as_deref()
                        })
                });
            if !right {
                return Err(format!(
                    "rollout {number} of {trigger} has an image that is no revision: {image}"
                ));
            }
        }
        made.entry(trigger.clone()).or_default().push(Made {
            number,
            digests: digests(&images),
            attempts: row.get("attempts"),
            withdrawn: row.get("withdrawn"),
        });
        recorded.insert(id, (trigger.clone(), number, images.clone()));
        last.insert(trigger, (number, state, images));
    }
    // People may order the same images again.
    let by_itself = |name: &String| TRIGGERS.iter().any(|(trigger, _)| trigger == name);
    for (trigger, made) in made.iter().filter(|(trigger, _)| by_itself(trigger)) {
        if let Some(repeated) = repeated(made) {
            return Err(format!(
                "a rollout of {trigger} has the same images as the one before: {repeated:?}"
            ));
        }
    }
    for (trigger, images) in TRIGGERS {
        let Some((number, state, set)) = last.get(trigger) else {
            return Err(format!("{trigger} has no rollout"));
        };
        for (place, (source, image)) in images.iter().enumerate() {
            let (repository, tag) = image.split_once(':').unwrap();
            let key = (
                format!("{source}.example.com"),
                repository.to_owned(),
                tag.to_owned(),
            );
            let head = stored
                .get(&key)
                .and_then(|revisions| in_force(revisions, i64::MAX));
            let wanted = head.and_then(|head| head.digest.as_deref());
            if set[format!("i{place}")]["digest"].as_str() != wanted || state != "succeeded" {
                return Err(format!(
                    "rollout {number} of {trigger} is {state} with {set}, and {image} is {wanted:?}"
                ));
            }
        }
    }
    let (deliveries, dying) = (world.sink.deliveries(), world.dying.deliveries());
    each_delivery_is_recorded(&deliveries, &recorded)?;
    each_delivery_is_recorded(&dying, &recorded)?;
    let count = deliveries.len() + dying.len();
    Ok((i64::try_from(rows.len()).unwrap(), count))
}

fn digests(images: &serde_json::Value) -> Vec<serde_json::Value> {
    let images = images.as_object().into_iter().flatten();
    images.map(|(_, image)| image["digest"].clone()).collect()
}

/// A recorded rollout of a trigger.
#[derive(Debug, Clone)]
struct Made {
    number: i64,
    digests: Vec<serde_json::Value>,
    attempts: i32,
    /// Withdrawn before the first attempt.
    withdrawn: bool,
}

/// Returns the first rollout that repeats the one before, after that one.
///
/// A withdrawn rollout changed nothing, so the next one may have the same images. The planner
/// compared with the withdrawn rollout, or with the last attempted one if the withdrawal came
/// first: the next one must differ from one of the two. Without an attempted one it is the first.
fn repeated(made: &[Made]) -> Option<[&Made; 2]> {
    let mut attempted: Option<&Made> = None;
    for pair in made.windows(2) {
        let [before, next] = pair else { continue };
        if before.attempts > 0 {
            attempted = Some(before);
        }
        let same = |other: &Made| other.digests == next.digests;
        let unchanged = !before.withdrawn || attempted.is_some_and(same);
        if same(before) && unchanged {
            return Some([before, next]);
        }
    }
    None
}

#[test]
fn a_rollout_repeats_the_one_before_unless_that_was_withdrawn() {
    const ATTEMPTED: (i32, bool) = (1, false);
    const PENDING: (i32, bool) = (0, false);
    const WITHDRAWN: (i32, bool) = (0, true);
    let repeats = |rollouts: &[(&str, (i32, bool))]| {
        let made: Vec<Made> = (1..)
            .zip(rollouts)
            .map(|(number, (digest, (attempts, withdrawn)))| Made {
                number,
                digests: vec![(*digest).into()],
                attempts: *attempts,
                withdrawn: *withdrawn,
            })
            .collect();
        repeated(&made).map(|[_, next]| next.number)
    };
    assert_eq!(
        repeats(&[("a", ATTEMPTED), ("b", ATTEMPTED), ("a", ATTEMPTED)]),
        None
    );
    assert_eq!(repeats(&[("a", ATTEMPTED), ("a", ATTEMPTED)]), Some(2));
    assert_eq!(repeats(&[("a", PENDING), ("a", ATTEMPTED)]), Some(2));
    // The first rollout was withdrawn.
    assert_eq!(repeats(&[("a", WITHDRAWN), ("a", ATTEMPTED)]), None);
    // The image went and came back, before or after the decision.
    assert_eq!(
        repeats(&[("a", ATTEMPTED), ("b", WITHDRAWN), ("b", ATTEMPTED)]),
        None
    );
    assert_eq!(
        repeats(&[("a", ATTEMPTED), ("b", WITHDRAWN), ("a", ATTEMPTED)]),
        None
    );
    assert_eq!(
        repeats(&[("a", ATTEMPTED), ("a", WITHDRAWN), ("a", ATTEMPTED)]),
        Some(2)
    );
    let later = [
        ("a", ATTEMPTED),
        ("b", WITHDRAWN),
        ("b", ATTEMPTED),
        ("b", ATTEMPTED),
    ];
    assert_eq!(repeats(&later), Some(4));
}

/// Checks that ROLLOUTS has every change of state of each trigger's rollouts once, in order.
pub(crate) async fn ledger(world: &World, db: &mut PgConnection) -> Result<(), String> {
    let rows = sqlx::query(
        "select t.name as trigger, c.rollout_id::text as rollout, c.state::text as state
         from rollout_change c join rollout o on o.id = c.rollout_id join trigger t on t.id = o.trigger_id order by c.ordinal",
    )
    .fetch_all(&mut *db)
    .await
    .map_err(|error| error.to_string())?;
    let mut recorded: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows {
        let change = (row.get("rollout"), row.get("state"));
        recorded.entry(row.get("trigger")).or_default().push(change);
    }
    let mut published: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (subject, body) in world.nats.messages("ROLLOUTS").await? {
        if !subject.starts_with("tagtrail.rollout.") {
            continue;
        }
        let event: Event<Rollout> =
            serde_json::from_slice(&body).map_err(|error| format!("{subject}: {error}"))?;
        let change = (event.data.id, event.data.state.as_str().to_owned());
        published
            .entry(event.data.trigger)
            .or_default()
            .push(change);
    }
    if published != recorded {
        return Err(format!(
            "ROLLOUTS has {published:?}, but {recorded:?} is recorded"
        ));
    }
    let waiting = "select count(*) from rollout_change where not published";
    match scalar(db, waiting).await? {
        0 => Ok(()),
        count => Err(format!("{count} changes are not marked as published")),
    }
}

/// Returns whether the signature of a request is right.
pub(crate) fn is_signed(delivery: &tagtrail_testkit::Delivery) -> bool {
    let key = STANDARD
        .decode(SIGNING_SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    let (id, time) = (
        delivery.header("webhook-id"),
        delivery.header("webhook-timestamp"),
    );
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&delivery.body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    delivery.header("webhook-signature") == signature
}

/// Checks that each delivery has the id and the images of a recorded rollout and a valid signature,
/// that all deliveries of a rollout have the same body, and that the numbers of a trigger's
/// rollouts do not decrease.
fn each_delivery_is_recorded(
    deliveries: &[tagtrail_testkit::Delivery],
    recorded: &HashMap<String, (String, i64, serde_json::Value)>,
) -> Result<(), String> {
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    let mut bodies: HashMap<&str, &[u8]> = HashMap::new();
    for delivery in deliveries {
        let id = delivery.header("webhook-id");
        let Some((trigger, number, images)) = recorded.get(id) else {
            return Err(format!("the target received {id}, which is not recorded"));
        };
        if !is_signed(delivery) {
            return Err(format!("{id} has a wrong signature"));
        }
        if *bodies.entry(id).or_insert(&delivery.body) != &delivery.body[..] {
            return Err(format!("the target received two bodies of {id}"));
        }
        let data = &delivery.json()["data"];
        if (&data["trigger"], &data["number"]) != (&trigger.as_str().into(), &(*number).into())
            || data["images"] != *images
        {
            return Err(format!(
                "the target received {data}, but {images} is recorded"
            ));
        }
        // An attempt may still be under way after the process lost its session: so the number may
        // decrease by 1.
        let newest = newest.entry(trigger.clone()).or_default();
        if *number + 1 < *newest {
            return Err(format!(
                "the target received {trigger} {number} after {newest}"
            ));
        }
        *newest = (*newest).max(*number);
    }
    Ok(())
}
