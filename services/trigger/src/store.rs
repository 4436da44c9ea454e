//! All SQL of the trigger service, by who runs it. What belongs together is one statement, and so one round trip and one
//! transaction. Whoever changes a rollout holds its trigger's row (`for update`), so the changes of one trigger are recorded in
//! the order in which they are committed. A statement that waited for that row sees the rest as it was before, so whatever it
//! then changes it asks about once more, in the `where` of the change: Postgres looks at that again on the newest version.

pub(crate) mod ledger;
pub(crate) mod planning;
pub(crate) mod working;

/// Columns of a rollout `o` with its trigger `t`, as [`tagtrail_postgres::row::rollout`] reads them.
macro_rules! columns {
    () => {
        "o.id, t.name as trigger, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error"
    };
}
use columns;

/// Adds the rollouts in `o`, whose state was changed, to the ledger as they are now, oldest first. The ledger reads them as
/// [`tagtrail_proto::Rollout`].
macro_rules! recorded {
    () => {
        "insert into rollout_change (rollout_id, state, rollout)
         select o.id, o.state, jsonb_build_object(
             'id', o.id, 'trigger', t.name, 'number', o.number, 'state', o.state, 'images', o.images, 'cause', o.cause,
             'attempts', o.attempts, 'created_at', o.created_at, 'finished_at', o.finished_at, 'error', o.error)
         from o join trigger t on t.id = o.trigger_id order by o.number"
    };
}
use recorded;
