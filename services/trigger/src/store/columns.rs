//! Parts of statements that several files share.

/// The columns of a rollout `o` with its trigger `t`, for [`tagtrail_postgres::row::rollout`].
macro_rules! columns {
    () => {
        "o.id, t.name as trigger, o.number, coalesce(o.epoch, t.epoch) as epoch, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error,
         case when o.finished_at is null then o.gates else '[]' end as gates, case when o.finished_at is null then o.opens_at end as opens_at"
    };
}
pub(super) use columns;

/// Inserts a ledger entry for each rollout in `o` with its present state, lowest number first. The
/// ledger reads each entry as a [`tagtrail_proto::Rollout`].
macro_rules! recorded {
    () => {
        concat!(
            "insert into rollout_change (rollout_id, state, rollout)
             select o.id, o.state, ",
            tagtrail_postgres::rollout_json!("o"),
            " from o join trigger t on t.id = o.trigger_id order by o.number"
        )
    };
}
pub(super) use recorded;

/// The column `unfinished`: the ids of the rollouts before `o` that were attempted after the last
/// success, of the last 32 of the trigger. Processes of their attempts may still run.
macro_rules! unfinished {
    () => {
        "array(
             select e.id::text from (
                 select w.id, w.attempts,
                     bool_or(w.state = 'succeeded' and w.attempts > 0) over (order by w.number desc) as settled
                 from (
                     select * from rollout w where w.trigger_id = o.trigger_id and w.number < o.number
                     order by w.number desc limit 32
                 ) w
             ) e where e.attempts > 0 and not e.settled
         ) as unfinished"
    };
}
pub(super) use unfinished;
