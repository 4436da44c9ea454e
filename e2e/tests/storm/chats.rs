//! The receivers of messages about rollouts: one that is slow and away at times, and one that never
//! answers well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use sqlx::{PgConnection, Row as _};
use tagtrail_testkit::{Answer, Delivery, Sink};

use crate::checks::scalar;
use crate::rollouts::is_signed;

/// The states of which the receivers are told: the ends of rollouts.
const ENDS: [&str; 4] = ["succeeded", "superseded", "rejected", "cancelled"];

/// Both receivers.
#[derive(Debug)]
pub(crate) struct Chats {
    /// Away at times.
    pub(crate) team: Sink,
    /// Dead from the begin to the end.
    dead: Sink,
}

impl Chats {
    pub(crate) async fn start() -> Chats {
        let (team, dead) = (Sink::start().await, Sink::start().await);
        dead.judge(|_| Answer::Late(Duration::from_secs(3600), 500));
        Chats { team, dead }
    }

    /// Returns the entries of both.
    pub(crate) fn config(&self) -> String {
        let on = ENDS.map(|state| format!("\"{state}\"")).join(", ");
        let entry = |name: &str, sink: &Sink| {
            format!(
                "[[notify]]\nname = \"{name}\"\non = [{on}]\nformat = \"cloudevents\"\nurl = \"{}\"\n\
                 secret = {{ env = \"STORM_SIGNING_SECRET\" }}\ntimeout_seconds = 2\n",
                sink.url()
            )
        };
        entry("team", &self.team) + &entry("dead", &self.dead)
    }

    /// The receiver is away, or slow, for the next few messages.
    pub(crate) fn disturb(&self, random: &mut StdRng) {
        let count = random.random_range(1..4);
        let answers = (0..count).map(|_| match random.random_range(0..4) {
            0 => Answer::Status(503),
            1 => Answer::With(429, "retry-after", "1".to_owned()),
            2 => Answer::Late(Duration::from_secs(5), 503),
            _ => Answer::Late(Duration::from_secs(1), 200),
        });
        self.team.answer(answers.collect::<Vec<_>>());
    }

    /// Checks that the receiver that is not dead was told of the end of each rollout, and always
    /// by the same message.
    pub(crate) async fn were_told(&self, db: &mut PgConnection) -> Result<(), String> {
        let told = messages(&self.team.deliveries())?;
        messages(&self.dead.deliveries())?;
        let rows = sqlx::query(
            "select t.name as trigger, o.number, c.rollout_id::text as id, c.state::text as state
             from rollout_change c join rollout o on o.id = c.rollout_id join trigger t on t.id = o.trigger_id
             where c.state in ('succeeded', 'superseded', 'rejected', 'cancelled') order by c.ordinal",
        )
        .fetch_all(&mut *db)
        .await
        .map_err(|error| error.to_string())?;
        let ends: Vec<(String, String)> = rows
            .iter()
            .map(|row| (row.get("id"), row.get("state")))
            .collect();
        if let Some(place) = ends.iter().position(|end| !told.contains(end)) {
            let (trigger, number): (&str, i64) =
                (rows[place].get("trigger"), rows[place].get("number"));
            return Err(format!(
                "the receiver of messages was told {} of {} ends, and not of rollout {number} of {trigger}, which is {}",
                told.len(),
                ends.len(),
                ends[place].1
            ));
        }
        let of_the_dead = "select count(*) from notify_position where name = 'dead'";
        match scalar(db, of_the_dead).await? {
            1 => Ok(()),
            _ => Err("the dead receiver has no place".to_owned()),
        }
    }
}

/// Returns the rollouts with the states of which these messages tell, without those that the
/// receiver refused. Each is signed, and all with one id have the same bytes.
fn messages(deliveries: &[Delivery]) -> Result<BTreeSet<(String, String)>, String> {
    let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut ids: BTreeMap<(String, String), &str> = BTreeMap::new();
    let mut accepted = BTreeSet::new();
    for delivery in deliveries {
        let id = delivery.header("webhook-id");
        if !is_signed(delivery) {
            return Err(format!("the message {id} has a wrong signature"));
        }
        if *bodies.entry(id).or_insert(&delivery.body) != &delivery.body[..] {
            return Err(format!("two messages have the id {id}"));
        }
        let data = &delivery.json()["data"];
        let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        let end = (text("id"), text("state"));
        if (200..300).contains(&delivery.answered) {
            accepted.insert(end.clone());
        }
        let before = *ids.entry(end).or_insert(id);
        if before != id {
            return Err(format!("the same message has the ids {before} and {id}"));
        }
    }
    Ok(accepted)
}
