//! All SQL of the trigger service, by who runs it. What belongs together is one statement, and so one round trip and one
//! transaction. Whoever changes a rollout holds its trigger's row (`for update`), so the changes of one trigger are recorded in
//! the order in which they are committed. A statement that waited for that row sees the rest as it was before, so whatever it
//! then changes it asks about once more, in the `where` of the change: Postgres looks at that again on the newest version.

mod columns;
pub(crate) mod ledger;
pub(crate) mod planning;
pub(crate) mod working;
