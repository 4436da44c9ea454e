//! The advisory locks of Tagtrail. The server releases them when the session that holds them ends
//! for any reason.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

/// An advisory lock. All locks are listed here, so that no two uses share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// The right to record the pushes of this partition.
    Partition(u16),
    /// The right to plan rollouts.
    Plan,
    /// The right to publish changes of rollouts.
    Ledger,
    /// The right to deliver messages about rollouts.
    Notify,
    /// The right to look for changes of targets by others.
    Drift,
    /// The right to read the annotated objects of clusters.
    Discover,
    /// The right to compare the streams with Postgres.
    Sweep,
    /// The right to store manifests.
    Manifests,
    /// The right to count changes for the coverage report.
    Coverage,
    /// The right to reconcile the registry with this number: [`Lock::number_of`] its name.
    Reconcile(i32),
    /// The right to ask the registry with this number about the images of triggers.
    WatchTriggers(i32),
    /// The right to record an act with an idempotency key: [`Lock::number_of`] actor and key.
    Act(i32),
    /// The proof that the process with this number lives: it owns its attempts at targets as long
    /// as it holds the lock.
    Instance(i32),
    /// The right to write to the branch of a git repository with this number:
    /// [`Lock::number_of`] URL and branch.
    Branch(i32),
}

impl Lock {
    /// The class of [`Lock::Instance`], as `pg_locks` shows it.
    pub const CLASS_OF_INSTANCES: i32 = 0x7461_6737; // "tag7"

    /// Returns the two numbers that Postgres knows the lock by: class and number.
    const fn key(self) -> (i32, i32) {
        const PARTITION: i32 = 0x7461_6731; // "tag1"
        // "tag2". Number 4 is taken by migrations/grants.sql: one session at a time changes rights.
        // Number 6 by migrations/src/indexes.rs: one session at a time migrates.
        const SERVICE: i32 = 0x7461_6732;
        // "tag3" was the right to act on the target of a trigger.
        const REGISTRY: i32 = 0x7461_6734; // "tag4"
        const TRIGGERS: i32 = 0x7461_6735; // "tag5"
        const ACT: i32 = 0x7461_6736; // "tag6"
        const BRANCH: i32 = 0x7461_6738; // "tag8"
        match self {
            Lock::Partition(number) => (PARTITION, number as i32),
            Lock::Plan => (SERVICE, 0),
            Lock::Ledger => (SERVICE, 1),
            Lock::Sweep => (SERVICE, 2),
            Lock::Manifests => (SERVICE, 3),
            Lock::Coverage => (SERVICE, 5),
            Lock::Notify => (SERVICE, 7),
            Lock::Drift => (SERVICE, 8),
            Lock::Discover => (SERVICE, 9),
            Lock::Reconcile(registry) => (REGISTRY, registry),
            Lock::WatchTriggers(registry) => (TRIGGERS, registry),
            Lock::Act(act) => (ACT, act),
            Lock::Instance(number) => (Lock::CLASS_OF_INSTANCES, number),
            Lock::Branch(number) => (BRANCH, number),
        }
    }

    /// Returns a number for a name, the same on every instance. Two names with the same number
    /// exclude each other, which does no harm.
    #[must_use]
    pub fn number_of(name: &str) -> i32 {
        let hash = Sha256::digest(name);
        i32::from_be_bytes(std::array::from_fn(|index| hash[index]))
    }

    /// Acquires the lock for this session, unless another session has it. Returns whether this
    /// session has it.
    ///
    /// # Errors
    /// [`sqlx::Error`] of the driver.
    pub async fn try_acquire(self, db: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let (class, number) = self.key();
        sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
            .bind(class)
            .bind(number)
            .fetch_one(db)
            .await
    }

    /// Waits for the lock, which the end of the transaction releases.
    ///
    /// # Errors
    /// [`sqlx::Error`] of the driver.
    pub async fn acquire_for_transaction(self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (class, number) = self.key();
        sqlx::query("select pg_advisory_xact_lock($1, $2)")
            .bind(class)
            .bind(number)
            .execute(db)
            .await
            .map(|_| ())
    }

    /// Returns the partitions whose lock a process of this service holds: a session with the same
    /// account and name as this one.
    ///
    /// # Errors
    /// [`sqlx::Error`] of the driver.
    pub async fn held_partitions(db: &mut PgConnection) -> Result<BTreeSet<u16>, sqlx::Error> {
        let (class, _) = Lock::Partition(0).key();
        let held: Vec<i64> = sqlx::query_scalar(
            "select l.objid::bigint as number
             from pg_locks l
             join pg_stat_activity a on a.pid = l.pid
             where l.locktype = 'advisory' and l.granted and l.classid = $1::oid and l.objsubid = 2
               and l.database = (select oid from pg_database where datname = current_database())
               and a.usename = current_user and a.application_name = current_setting('application_name')",
        )
        .bind(class)
        .fetch_all(db)
        .await?;
        Ok(held
            .into_iter()
            .filter_map(|number| u16::try_from(number).ok())
            .collect())
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// [`sqlx::Error`] of the driver.
    pub async fn release(self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (class, number) = self.key();
        sqlx::query("select pg_advisory_unlock($1, $2)")
            .bind(class)
            .bind(number)
            .execute(db)
            .await
            .map(|_| ())
    }
}
