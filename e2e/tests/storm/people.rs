//! The acts of people during a storm: holds, orders, pauses and changed files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tagtrail_testkit::{Answer, SOON, eventually};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::teams::{ADDED, CHECKED, FROZEN, Files, PAUSED, PINNED, REMOVED, TEAMS};
use crate::world::World;
use crate::{commands, reports};

/// The time after which settings that another service had replaced count as a change.
const REPLACED: Duration = Duration::from_secs(120);

/// Acts until `end`. Returns the number of acts by name, as far as the api accepted them.
pub(crate) async fn act(world: Arc<World>, seed: u64, end: Instant) -> BTreeMap<String, u32> {
    let people = People::new(world);
    let mut random = StdRng::seed_from_u64(seed ^ 0x9e09_1e55);
    let mut happened: BTreeMap<String, u32> = BTreeMap::new();
    let half = (end - Instant::now()) / 2;
    let middle = Instant::now() + half;
    let mut gates_closed = false;
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(50..500))).await;
        if !gates_closed && Instant::now() > middle {
            gates_closed = people.close_gates().await;
        }
        if let Some(act) = people.act(&mut random).await {
            *happened.entry(act.to_owned()).or_default() += 1;
        }
    }
    let deadline = Instant::now() + SOON * 2;
    while !gates_closed {
        assert!(
            Instant::now() < deadline,
            "seed {seed}: people could not close the gates, such as a pin to the first revision"
        );
        sleep(Duration::from_millis(500)).await;
        gates_closed = people.close_gates().await;
    }
    people.strike_workers().await;
    happened
}

/// Those who act.
pub(crate) struct People {
    world: Arc<World>,
    client: reqwest::Client,
}

impl People {
    pub(crate) fn new(world: Arc<World>) -> People {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(3));
        People {
            world,
            client: client.build().unwrap(),
        }
    }

    /// Sends an order. `None`: no answer, or a refusal.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Option<Value> {
        self.order(path, body).await.ok()
    }

    /// Sends an order.
    ///
    /// # Errors
    /// The refusal, or the cause why there is no answer.
    async fn order(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("http://{}/v1/{path}", self.world.api);
        let answer = self.client.post(url).json(body).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        assert_ne!(status, 400, "{path} {body}: {text}");
        match status {
            200 => serde_json::from_str(&text).map_err(|error| error.to_string()),
            _ => Err(format!("{status} {text}")),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}/v1/{path}", self.world.api);
        let answer = self.client.get(url).send().await.ok()?;
        (answer.status() == 200).then_some(answer.json().await.ok()?)
    }

    /// Does one act, chosen by the seed.
    async fn act(&self, random: &mut StdRng) -> Option<&'static str> {
        let free: Vec<&str> = TEAMS
            .iter()
            .map(|team| team.name)
            .filter(|name| ![FROZEN, PAUSED, PINNED, ADDED, REMOVED].contains(name))
            .collect();
        let name = *free.choose(random).unwrap();
        let because = json!({ "reason": "the storm" });
        let of = |act: &str| format!("triggers/{name}/{act}");
        let until = OffsetDateTime::now_utc() + Duration::from_secs(random.random_range(1..6));
        let until = tagtrail_proto::instant::format(until).unwrap();
        let kind = random.random_range(0..120);
        let patterns = [name, "t-*", "t-d*"];
        match kind {
            0..8 => self.post(&of("pause"), &because).await.map(|_| "pause"),
            8..22 => self.post(&of("resume"), &because).await.map(|_| "resume"),
            22..32 => {
                let triggers = *patterns.choose(random).unwrap();
                let mut freeze = json!({ "triggers": triggers, "reason": "the storm", "hard": random.random_bool(0.3) });
                if random.random_bool(0.5) {
                    freeze["until"] = until.into();
                }
                self.post("holds", &freeze).await.map(|_| "freeze")
            }
            32..42 => self.thaw(random).await.map(|()| "thaw"),
            42..50 => {
                let mut order = because;
                if random.random_bool(0.5) {
                    order["until"] = until.into();
                }
                self.post(&of("rollback"), &order).await.map(|_| "rollback")
            }
            50..60 => self.post(&of("release"), &because).await.map(|_| "release"),
            60..66 => self.post(&of("rollout"), &because).await.map(|_| "rollout"),
            66..74 => self.post(&of("retry"), &because).await.map(|_| "retry"),
            74..80 => {
                let trigger = self.get(&format!("triggers/{name}")).await?;
                let id = trigger["last"]["id"].as_str()?.to_owned();
                let path = format!("rollouts/{id}/cancel");
                self.post(&path, &because).await.map(|_| "cancel")
            }
            80..94 => {
                self.change_files(random).await;
                Some("files change")
            }
            94..97 => {
                commands::kill_one(self.world.folder(), random);
                Some("command killed")
            }
            97..100 => {
                self.world.dying.answer(answers(random));
                Some("dying target")
            }
            100..109 => self.judge("approve", random).await.map(|()| "approve"),
            109..113 => self.judge("reject", random).await.map(|()| "reject"),
            113..117 => {
                self.world.chats.disturb(random);
                Some("receiver of messages away")
            }
            _ => {
                self.world.health.answer(reports::health(random));
                Some("not healthy")
            }
        }
    }

    /// Ends a freeze that a person made in the storm.
    async fn thaw(&self, random: &mut StdRng) -> Option<()> {
        let holds = self.get("holds").await?;
        let holds: Vec<&Value> = holds["items"]
            .as_array()?
            .iter()
            .filter(|hold| hold["kind"] == "freeze" && hold["triggers"] != FROZEN)
            .collect();
        let id = holds.choose(random)?["id"].as_i64()?;
        self.delete_hold(id).await
    }

    async fn delete_hold(&self, id: i64) -> Option<()> {
        let url = format!("http://{}/v1/holds/{id}", self.world.api);
        let answer = self.client.delete(url).send().await.ok()?;
        (answer.status() == 200).then_some(())
    }

    /// Changes the files of triggers, and sometimes tells the services at once.
    async fn change_files(&self, random: &mut StdRng) {
        {
            let mut files = self.world.files.lock().await;
            let Files {
                narrow,
                added,
                removed,
                no_toml,
                no_secret,
                ..
            } = &mut *files;
            let switches = [narrow, added, removed, no_toml, no_secret];
            let chosen = random.random_range(0..switches.len());
            for (place, switch) in switches.into_iter().enumerate() {
                if place == chosen {
                    *switch = !*switch;
                }
            }
            files.write();
        }
        if random.random_bool(0.5) {
            for member in &self.world.members {
                member.hang_up().await;
            }
        }
    }

    /// Ends both trigger services while a target hangs and commands resist their end, so that the
    /// attempts must be taken over.
    async fn strike_workers(&self) {
        let folder = self.world.folder().join("notes");
        std::fs::write(folder.join("resist"), "").unwrap();
        self.world.dying.calm();
        self.world
            .dying
            .answer((0..4).map(|_| Answer::Late(Duration::from_secs(20), 200)));
        for name in ["t-dying", "t-retried", "t-deploy", "t-install", CHECKED] {
            for act in ["resume", "release", "rollout"] {
                let because = json!({ "reason": "the end of the storm" });
                self.post(&format!("triggers/{name}/{act}"), &because).await;
            }
        }
        sleep(Duration::from_secs(2)).await;
        let members = self.world.members.iter();
        for member in members.filter(|member| member.name.starts_with("trigger")) {
            member.kill().await;
            member.start().await;
        }
        sleep(Duration::from_secs(1)).await;
        std::fs::remove_file(folder.join("resist")).unwrap();
    }

    /// Closes a gate of each trigger that shall end the storm behind one. Returns whether all are
    /// closed.
    async fn close_gates(&self) -> bool {
        let reason = json!({ "reason": "the end of the storm" });
        let freeze = json!({ "triggers": FROZEN, "reason": "the end of the storm" });
        let holds = async |kind: &str, name: &str| {
            let holds = self.get("holds").await?;
            let mut items = holds["items"].as_array()?.iter();
            Some(items.any(|hold| hold["kind"] == kind && hold["triggers"] == name))
        };
        if holds("freeze", FROZEN).await == Some(false) {
            self.post("holds", &freeze).await;
        }
        self.post(&format!("triggers/{PAUSED}/pause"), &reason)
            .await;
        if holds("pin", PINNED).await == Some(false) {
            let images = json!({ "i0": { "revision": 1 } });
            let pin = json!({ "images": images, "reason": "the end of the storm" });
            self.post(&format!("triggers/{PINNED}/pin"), &pin).await;
        }
        let paused = self.get(&format!("triggers/{PAUSED}")).await;
        paused.is_some_and(|paused| paused["state"] == "paused")
            && holds("freeze", FROZEN).await == Some(true)
            && holds("pin", PINNED).await == Some(true)
    }
}

/// The next answers of the dying target.
fn answers(random: &mut StdRng) -> Vec<Answer> {
    let count = random.random_range(1..6);
    let answer = |random: &mut StdRng| match random.random_range(0..5) {
        0 => Answer::Status(500),
        1 => Answer::Status(404),
        2 => Answer::Status(410),
        3 => Answer::Late(Duration::from_secs(20), 200),
        _ => Answer::Late(Duration::from_secs(2), 500),
    };
    (0..count).map(|_| answer(random)).collect()
}

/// Opens all gates but those that shall stay closed, mends the files and makes each failed rollout
/// due again.
pub(crate) async fn heal(world: &Arc<World>) {
    let people = People::new(Arc::clone(world));
    {
        let mut files = world.files.lock().await;
        (files.no_toml, files.no_secret) = (false, false);
        (files.added, files.removed) = (true, true);
        files.write();
    }
    world.dying.calm();
    std::fs::write(world.folder().join("notes/calm"), "").unwrap();
    let because = json!({ "reason": "the storm is over" });
    eventually("the end of all freezes", SOON, async || {
        let holds = people.get("holds").await?;
        let mut open = true;
        for hold in holds["items"].as_array()? {
            if hold["kind"] == "freeze" && hold["triggers"] != FROZEN {
                open = false;
                people.delete_hold(hold["id"].as_i64()?).await;
            }
        }
        open.then_some(())
    })
    .await;
    // A service that takes the files reads each repository. Later pushes are news. A service that
    // was started with older files than another one had waits until these count as a change.
    let deadline = Instant::now() + REPLACED + SOON;
    loop {
        let added = people.get(&format!("triggers/{ADDED}")).await;
        let removed = people.get(&format!("triggers/{REMOVED}")).await;
        if added.is_some() && removed.is_none() || Instant::now() > deadline {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    for team in TEAMS {
        let acts: &[&str] = match team.name {
            REMOVED | FROZEN | PAUSED => &[],
            PINNED => &["resume", "retry"],
            _ => &["resume", "release", "retry"],
        };
        for act in acts {
            let path = format!("triggers/{}/{act}", team.name);
            let deadline = Instant::now() + SOON;
            while let Err(refusal) = people.order(&path, &because).await {
                if Instant::now() >= deadline {
                    world.show_logs().await;
                    panic!("{path}: {refusal}");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
