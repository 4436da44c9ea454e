//! Triggers that do not roll out: one for each reason.

use sqlx::{AssertSqlSafe, PgConnection};
use tagtrail_proto::ReasonCode;

/// The text of the reason, as a person, a target or the planner has written it.
pub const SO_IT_IS: &str = "so it is";

const WEB: &str = "registry.example.com/shop/web:latest";

/// Writes a trigger that does not roll out for this reason, and no other one. Returns its name, and
/// a text that people must see.
pub async fn stand(db: &mut PgConnection, code: ReasonCode) -> (String, &'static str) {
    let name = code.as_str().replace('_', "-");
    let base = format!(
        "insert into trigger (name, images, target, configured, epoch)
         values ('{name}', '{{\"web\": \"{WEB}\"}}', '{name}', true, now());
         {}",
        rollout(&name, 1, "succeeded")
    );
    run(db, &base).await;
    let (sql, seen) = because(code, &name);
    run(db, &sql).await;
    (name, seen)
}

async fn run(db: &mut PgConnection, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

/// Returns the statements that bring about the reason. A new code needs a row.
fn because(code: ReasonCode, name: &str) -> (String, &'static str) {
    use ReasonCode as Code;
    let trigger = |set: &str| format!("update trigger set {set} where name = '{name}'");
    let of_image = || {
        let reason = format!(
            "[{{\"code\": \"{code}\", \"image\": \"{WEB}\", \"why\": \"{SO_IT_IS}\", \"since\": null, \"opens_at\": null, \"cure\": null}}]"
        );
        trigger(&format!("reasons = '{reason}', wanted = '{{}}'"))
    };
    let before = || {
        let waiting = format!(
            "[{{\"gate\": \"{code}\", \"image\": \"{WEB}\", \"registry\": \"registry.example.com\", \"why\": \"{SO_IT_IS}\", \"since\": \"2026-03-03T14:00:00Z\", \"opens_at\": null}}]"
        );
        trigger(&format!("waiting = '{waiting}'"))
    };
    let next = |state: &str, set: &str| {
        let next = rollout(name, 2, state);
        format!(
            "{next}; update rollout o set {set} from trigger t where t.id = o.trigger_id and t.name = '{name}' and o.number = 2"
        )
    };
    let held = || {
        let gates = format!(
            "[{{\"gate\": \"{code}\", \"why\": \"{SO_IT_IS}\", \"since\": \"2026-03-03T14:00:00Z\", \"opens_at\": null}}]"
        );
        next("held", &format!("gates = '{gates}', attempts = 0"))
    };
    let hold = |images: &str| {
        format!(
            "insert into hold (kind, triggers, reason, images, actor) select '{code}', '{name}', '{SO_IT_IS}', {images}, 'ann'
             from rollout o join trigger t on t.id = o.trigger_id where t.name = '{name}'"
        )
    };
    let attempt = |number: i32| {
        format!(
            "insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started)
             select o.id, 1, o.trigger_id, 1, 'm', 1, 1 from rollout o join trigger t on t.id = o.trigger_id
             where t.name = '{name}' and o.number = {number}"
        )
    };
    let due = "attempts = 0, next_attempt_at = now() - interval '1 minute'";
    match code {
        Code::Broken => (
            trigger(&format!("broken = true, problem = '{SO_IT_IS}'")),
            SO_IT_IS,
        ),
        Code::Pause => (
            trigger(&format!(
                "state = 'paused', paused_by = 'ann', paused_at = now(), paused_reason = '{SO_IT_IS}'"
            )),
            SO_IT_IS,
        ),
        Code::Freeze | Code::Fault => (hold("null"), SO_IT_IS),
        Code::Pin => (hold("o.images"), SO_IT_IS),
        Code::Adopting | Code::UnknownImage
        | Code::Deleted
        | Code::Removed
        | Code::NoCandidate
        | Code::MetadataWait
        | Code::NoAgreement
        | Code::MinAge => (of_image(), SO_IT_IS),
        Code::OtherGeneration => (
            format!(
                "{}; insert into trigger_spec (trigger_id, generation, door, spec, complete, hash, actor)
                 select id, 1, 'file', '{{}}', true, sha256(''), 'configuration' from trigger where name = '{name}';
                 insert into trigger_process (instance, machine, pid, others) values (1, 'm', 7, '{{\"{name}\": null}}')",
                trigger("generation = 1, spec_hash = sha256('')")
            ),
            "no running process",
        ),
        Code::Recheck | Code::Manifest | Code::Settle | Code::Tombstone | Code::Upstream => {
            (before(), SO_IT_IS)
        }
        Code::Window | Code::Gap | Code::Group | Code::Approval => (held(), SO_IT_IS),
        Code::Retrying => (
            next("running", &format!("error = '{SO_IT_IS}'")),
            SO_IT_IS,
        ),
        Code::Failed => (next("failed", &format!("error = '{SO_IT_IS}'")), SO_IT_IS),
        Code::Ended => (
            next("failed", &format!("error = '{SO_IT_IS}', ended = true, finished_at = now()")),
            SO_IT_IS,
        ),
        Code::Slots => {
            // The attempt of another trigger takes the only slot for targets of this kind.
            let other = format!(
                "insert into trigger (name, images, target, configured, epoch) values ('{name}-2', '{{}}', '{name}', true, now());
                 {}; insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started)
                 select o.id, 1, o.trigger_id, 1, 'm', 1, 1 from rollout o join trigger t on t.id = o.trigger_id where t.name = '{name}-2'",
                rollout(&format!("{name}-2"), 1, "running")
            );
            (format!("{other}; {}", next("pending", due)), "no slot is free")
        }
        Code::Finish => {
            let watching = next("watching", "attempts = 1");
            let newest = rollout(name, 3, "pending");
            let finish = trigger("finish = true");
            let due = format!("update rollout set {due} where state = 'pending' and number = 3");
            (
                format!("{watching}; {newest}; {due}; {finish}"),
                "waits for the result of rollout 2",
            )
        }
        Code::Ending => (
            format!("{}; {}", attempt(1), next("pending", due)),
            "is being ended",
        ),
        Code::Adopted => (
            format!(
                "update rollout o set cause = '{{\"reason\": \"adopted\", \"changed\": [\"web\"]}}', attempts = 0
                 from trigger t where t.id = o.trigger_id and t.name = '{name}'"
            ),
            "were there before the trigger",
        ),
    }
}

fn rollout(trigger: &str, number: u8, state: &str) -> String {
    let digest = format!("sha256:{}", format!("{number:02x}").repeat(32));
    format!(
        "insert into rollout (id, trigger_id, number, state, images, cause, attempts, created_at, started_at, finished_at)
         select gen_random_uuid(), t.id, {number}, '{state}',
             '{{\"web\": {{\"image\": \"{WEB}\", \"revision\": {number}, \"digest\": \"{digest}\", \"pinned\": \"registry.example.com/shop/web@{digest}\"}}}}',
             '{{\"reason\": \"revision\", \"changed\": [\"web\"]}}', 1, now(), case when '{state}' not in ('held', 'pending') then now() end,
             case when '{state}' = 'succeeded' then now() end
         from trigger t where t.name = '{trigger}';"
    )
}
