//! One trigger of one image, driven step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_config::File;
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_policy::begin::Verdict;
use tagtrail_policy::choice;
use tagtrail_policy::decide::{Decision, FirstSight, Reported, Situation};
use tagtrail_policy::retry::{self, Next, Outcome, Pace};
use tagtrail_proto::{Digest, Image, RolloutState};

use super::check::Rows;
use super::{End, Step};
use crate::act::Owner;
use crate::config::TriggerSpec;
use crate::plan::gating::{Round, gate};
use crate::plan::orders::{self, Settling};
use crate::settings::{Recorded, Settings};
use crate::store::planning::{NewRollout, Plan};
use crate::store::working::{Attempt, Ended, Own};
use crate::store::{attempts, gates, orders as order_store, planning, specs, states, working};

/// The rounds after which a trigger without holds has carried out all orders, and then its wanted
/// set.
const ROUNDS: usize = 40;

pub(super) struct World<'a> {
    pub(super) sql: &'a mut PgConnection,
    pub(super) trigger: i32,
    image: Image,
    spec: TriggerSpec,
    /// The digest of the tag, by number.
    head: Option<u8>,
    /// A decision that is not recorded yet, with its answers to orders.
    decided: Option<(Plan, Vec<(i64, String)>)>,
    /// The attempt that runs, with its process.
    running: Option<(Attempt, usize)>,
    /// An attempt whose process was taken for dead.
    stale: Option<(Attempt, usize)>,
    /// The rows after the last step.
    last: Option<Rows>,
}

fn owner(process: usize) -> Owner {
    Owner {
        instance: i32::try_from(process).unwrap() + 1,
        machine: "walk".to_owned(),
        pid: 1,
        pid_started: 1,
    }
}

fn digest(n: u8) -> Digest {
    Digest::sha256_of(&[n])
}

impl<'a> World<'a> {
    /// Walks with a new trigger. Returns the first rule that a step breaks.
    pub(super) async fn walk(
        sql: &'a mut PgConnection,
        number: u32,
        steps: &[Step],
    ) -> Result<(), String> {
        let mut world = World::new(sql, number).await;
        for (at, step) in steps.iter().enumerate() {
            world
                .checked(*step)
                .await
                .map_err(|broken| format!("step {at}, {step:?}: {broken}"))?;
        }
        world.reach().await
    }

    async fn new(sql: &'a mut PgConnection, number: u32) -> World<'a> {
        let image = format!("registry.example.com/walk/{number}:latest");
        let text = format!(
            "[[trigger]]\nname = \"walk-{number}\"\nimages.web = \"{image}\"\nsettle = \"0s\"\ntarget.command = {{ run = [\"/bin/true\"] }}\n"
        );
        let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
        let settings = Settings::read(&file, &Recorded::default(), None);
        specs::configure(sql, &settings).await.unwrap();
        let (name, spec) = settings.triggers.first_key_value().unwrap();
        let trigger = sqlx::query_scalar("select id from trigger where name = $1")
            .bind(name)
            .fetch_one(&mut *sql)
            .await
            .unwrap();
        World {
            sql,
            trigger,
            image: image.parse().unwrap(),
            spec: spec.clone(),
            head: None,
            decided: None,
            running: None,
            stale: None,
            last: None,
        }
    }

    async fn rows(&mut self) -> Rows {
        Rows::read(self.sql, self.trigger, &self.spec.name).await
    }

    async fn checked(&mut self, step: Step) -> Result<(), String> {
        let before = match self.last.take() {
            Some(rows) => rows,
            None => self.rows().await,
        };
        self.step(step).await;
        let after = self.rows().await;
        let checked = before.check(&after);
        self.last = Some(after);
        checked
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Push(n) => self.push(n).await,
            Step::Plan { begin } => {
                self.orders().await;
                self.decide(begin).await;
                self.record().await;
            }
            Step::Decide => {
                self.orders().await;
                self.decide(true).await;
            }
            Step::Record => self.record().await,
            Step::Begin { process } => self.begin(process).await,
            Step::End(end) => self.end(end).await,
            Step::TakeOver => self.take_over().await,
            Step::Start => {
                let names = [self.spec.name.as_str()];
                working::start_over(self.sql, &names, Duration::ZERO)
                    .await
                    .unwrap();
            }
            Step::Wait => self.wait().await,
            Step::Freeze { hard } => self.freeze(hard).await,
            Step::Thaw => self.thaw().await,
            Step::Rollback(which) => self.roll_back(which).await,
            Step::Release => self.release().await,
            Step::RollOut => self.roll_out().await,
            Step::Retry => self.retry().await,
            Step::Cancel => self.cancel().await,
            Step::Pause => self.pause().await,
            Step::Resume => self.resume().await,
        }
    }

    async fn push(&mut self, n: u8) {
        if self.head.replace(n) == Some(n) {
            return;
        }
        sqlx::query(
            "with r as (
                 insert into repository (registry, name) values ($1, $2) on conflict (registry, name) do update set name = $2 returning id)
             insert into tag (repository_id, name) select id, $3 from r on conflict do nothing",
        )
        .bind(self.image.registry.as_ref())
        .bind(self.image.repository.as_ref())
        .bind(self.image.tag.as_ref())
        .execute(&mut *self.sql)
        .await
        .unwrap();
        sqlx::query(
            "with t as (
                 select t.id, t.issued + 1 as number, t.head from repository r join tag t on t.repository_id = r.id
                 where r.registry = $1 and r.name = $2),
             p as (
                 insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
                 select id, 'push', $3, clock_timestamp(), clock_timestamp(), 'event', now(), now(), 'event', 'main', '', 0 from t returning id),
             v as (
                 insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
                 select t.id, t.number, case when t.head is null then 'created' else 'moved' end::revision_kind, $3, now(), now(), t.head, t.number, p.id, 0, p.id
                 from t, p)
             update tag set issued = t.number, head = t.number, head_digest = $3, head_at = now() from t where tag.id = t.id",
        )
        .bind(self.image.registry.as_ref())
        .bind(self.image.repository.as_ref())
        .bind(digest(n).as_bytes())
        .execute(&mut *self.sql)
        .await
        .unwrap();
    }

    /// Carries out the orders that need no decision, as the planner does.
    async fn orders(&mut self) {
        let ordered = planning::ordered(self.sql).await.unwrap();
        let retries: Vec<i32> = ordered
            .iter()
            .filter(|one| one.retry)
            .map(|one| one.id)
            .collect();
        planning::retry(self.sql, &retries).await.unwrap();
        order_store::cancel(self.sql).await.unwrap();
        order_store::due(self.sql).await.unwrap();
    }

    async fn decide(&mut self, begin: bool) {
        let name = self.spec.name.clone();
        let states = states::trigger_states(self.sql, &[&name]).await.unwrap();
        let heads = planning::heads(self.sql, &[&self.image]).await.unwrap();
        let (state, now) = states.first().unwrap();
        let selected = choice::selected(&self.spec.images, std::iter::empty(), &heads);
        let asked = BTreeSet::new();
        let situation = Situation {
            images: &self.spec.images,
            followed: false,
            selected: &selected,
            last: state.last.as_ref(),
            unsent: state.unsent,
            target_changed: false,
            cut_off: state.cut_off,
            first: FirstSight {
                start: self.spec.start,
                reported: Reported::NotAsked,
                configured_at: state.first_configured_at,
            },
            paused: state.paused,
            resumed: state.resuming,
            settle: self.spec.settle,
            asked: &asked,
            partial: false,
            now: *now,
        };
        let settling = Settling {
            longest: self.spec.settle_max,
            before: &state.waiting,
        };
        let ordered = orders::decide(&situation, &state.standing, &settling);
        let mut plan = Plan::default();
        match ordered.decision {
            Decision::Nothing { .. } => plan.resumed.extend(state.resuming.then_some(state.id)),
            Decision::Wait { .. } => {}
            Decision::Start { images, cause } => plan.new_rollouts.push(NewRollout {
                trigger: self.trigger,
                name: name.clone(),
                images,
                cause,
                trace: *Span::start("plan", SpanKind::Consumer, None).context(),
                begin: false,
                order: ordered.order,
                fixed: ordered.fixed,
                identity: None,
                verdict: Verdict::OPEN,
            }),
        }
        let round = Round {
            name: &name,
            id: self.trigger,
            paused: state.paused,
            now: *now,
            standing: state.standing.clone(),
            settings: &self.spec.gates,
        };
        // A trigger without a group needs no others.
        let others = BTreeMap::new();
        gate(self.sql, &mut plan, &others, &[round]).await.unwrap();
        for new in &mut plan.new_rollouts {
            new.begin = begin && new.verdict.state == RolloutState::Pending;
        }
        self.decided = Some((plan, ordered.answer.into_iter().collect()));
    }

    async fn record(&mut self) {
        let Some((plan, answers)) = self.decided.take() else {
            return;
        };
        let recorded = match plan.is_empty() {
            true => Vec::new(),
            false => planning::record(self.sql, &plan, &owner(0)).await.unwrap(),
        };
        if !plan.gates.is_empty() {
            gates::record(self.sql, &plan.gates).await.unwrap();
        }
        for one in recorded.into_iter().filter(|one| one.begun) {
            self.running = Some((one.rollout, 0));
        }
        order_store::answer(self.sql, &answers).await.unwrap();
    }

    async fn begin(&mut self, process: usize) {
        let hash: Vec<u8> = sqlx::query_scalar("select spec_hash from trigger where id = $1")
            .bind(self.trigger)
            .fetch_one(&mut *self.sql)
            .await
            .unwrap();
        let own = Own {
            trigger: self.trigger,
            hash: hash.try_into().unwrap(),
            identity: String::new(),
            partial: false,
        };
        let begun = working::begin(self.sql, &[own], &owner(process))
            .await
            .unwrap();
        for attempt in begun {
            self.running = Some((attempt, process));
        }
    }

    /// Ends the attempt that runs, or else the one whose process was taken for dead.
    async fn end(&mut self, end: End) {
        let Some((attempt, process)) = self.running.take().or(self.stale.take()) else {
            return;
        };
        let owner = owner(process);
        let outcome = match end {
            End::Done => Outcome::Done,
            End::Failed => Outcome::Failed {
                error: "no".to_owned(),
                after: None,
            },
            End::Refused => Outcome::Refused("no".to_owned()),
            End::Gone => Outcome::Gone("no".to_owned()),
        };
        let mut ended = Ended {
            outcome: outcome.as_str(),
            status: None,
            error: None,
            said: "",
        };
        if end == End::Done {
            working::succeed(self.sql, &attempt, &owner, ended)
                .await
                .unwrap();
            return;
        }
        let mut tx = self.sql.begin().await.unwrap();
        let standing = working::standing(&mut tx, &attempt).await.unwrap();
        let took = Duration::from_millis(1);
        let mut next = retry::next(Pace::default(), outcome, standing.phase, took, 0.5);
        if standing.newer {
            next = next.below_a_newer_one();
        }
        ended.error = next.error();
        let mine = working::end(&mut tx, &attempt, &owner, ended, next.pause())
            .await
            .unwrap();
        if !mine {
            tx.rollback().await.unwrap();
            return;
        }
        let id = attempt.rollout.id.as_str();
        match &next {
            _ if !standing.live => {}
            Next::Succeeded | Next::Watching => {}
            Next::Ended(error) => working::finish(&mut tx, id, RolloutState::Failed, error)
                .await
                .unwrap(),
            Next::Superseded(error) => {
                working::finish(&mut tx, id, RolloutState::Superseded, error)
                    .await
                    .unwrap();
            }
            Next::Failed { pause, error } => {
                working::fail(&mut tx, id, *pause, error).await.unwrap()
            }
            Next::Retry {
                pause,
                counted,
                error,
            } => {
                working::retry(&mut tx, id, (*pause, *counted), error)
                    .await
                    .unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    async fn take_over(&mut self) {
        let Some((attempt, process)) = self.running.take() else {
            return;
        };
        let key = (attempt.rollout.id.clone(), attempt.rollout.attempts);
        attempts::interrupt(self.sql, owner(process).instance, &[key], "gone")
            .await
            .unwrap();
        self.stale = Some((attempt, process));
    }

    async fn wait(&mut self) {
        sqlx::query("update rollout set next_attempt_at = now() where trigger_id = $1 and next_attempt_at > now()")
            .bind(self.trigger)
            .execute(&mut *self.sql)
            .await
            .unwrap();
    }

    /// Lets go of all holds, and works until nothing changes: then the wanted set must have
    /// succeeded last.
    async fn reach(&mut self) -> Result<(), String> {
        let Some(head) = self.head else {
            return Ok(());
        };
        let rows = self.rows().await;
        for _ in &rows.freezes {
            self.checked(Step::Thaw).await?;
        }
        for step in [Step::Record, Step::Resume, Step::Release] {
            self.checked(step).await?;
        }
        let mut open = true;
        for _ in 0..ROUNDS {
            self.checked(Step::Plan { begin: false }).await?;
            open = sqlx::query_scalar(
                "select exists (select from rollout_order where trigger_id = $1 and done_at is null)",
            )
            .bind(self.trigger)
            .fetch_one(&mut *self.sql)
            .await
            .unwrap();
            if !open {
                break;
            }
        }
        if open {
            return Err("without holds, an order is never carried out".to_owned());
        }
        // These ends wait for a person: 410, and a cancelled set.
        let rows = self.rows().await;
        let last = rows
            .rollouts
            .iter()
            .rev()
            .find(|one| one.state != "superseded");
        match last.map(|last| (last.state.as_str(), last.ended)) {
            Some(("failed", true)) => self.checked(Step::Retry).await?,
            Some(("cancelled", _)) => self.checked(Step::RollOut).await?,
            _ => {}
        }
        let mut before = self.rows().await;
        for round in 0..6 {
            for step in [
                Step::End(End::Done),
                Step::Plan {
                    begin: round % 2 == 0,
                },
                Step::Wait,
                Step::Begin { process: 1 },
                Step::End(End::Done),
            ] {
                self.checked(step).await?;
            }
            let now = self.rows().await;
            if now == before {
                break;
            }
            before = now;
        }
        let rows = self.rows().await;
        let live = rows.rollouts.iter().find(|one| !one.has_ended());
        if let Some(live) = live {
            return Err(format!("without holds, {live:?} never ends"));
        }
        let current: Option<BTreeMap<String, serde_json::Value>> = sqlx::query_scalar(
            "select images from rollout where trigger_id = $1 and state = 'succeeded' order by number desc limit 1",
        )
        .bind(self.trigger)
        .fetch_optional(&mut *self.sql)
        .await
        .unwrap()
        .map(|images: sqlx::types::Json<_>| images.0);
        let current = current.map(|images| images["web"]["digest"].clone());
        let wanted = serde_json::json!(digest(head).to_string());
        match current == Some(wanted) {
            true => Ok(()),
            false => Err(format!(
                "without holds, {head} is not reached: {:#?}",
                rows.rollouts
            )),
        }
    }
}
