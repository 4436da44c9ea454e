//! A random walk of the state machine of rollouts, on the real statements and a real Postgres.
//!
//! The walk pushes, plans, begins and ends attempts, gives orders and sets holds, in any order and
//! by two processes. After each step the rows are compared with the rules, which are written here
//! once more. `WALK_SEED` repeats a walk, `WALK_SECONDS` sets the time.

mod check;
mod people;
mod world;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::world::World;

/// A step of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The tag gets the digest of this number.
    Push(u8),
    /// The planner decides and records. The process begins the attempt at once if it may.
    Plan {
        begin: bool,
    },
    /// The planner decides, and records only in a later step.
    Decide,
    /// The planner records the earlier decision.
    Record,
    /// A process begins an attempt.
    Begin {
        process: usize,
    },
    /// The running attempt ends in this way.
    End(End),
    /// The process of the running attempt is gone, and another one takes over.
    TakeOver,
    /// The trigger service starts.
    Start,
    /// The pause before the next attempt passes.
    Wait,
    /// A person freezes all triggers.
    Freeze {
        hard: bool,
    },
    /// A person ends the oldest freeze.
    Thaw,
    /// A person rolls back to a set that succeeded before, pinned.
    Rollback(u8),
    /// A person ends the pin.
    Release,
    /// A person orders the wanted set again.
    RollOut,
    Retry,
    Cancel,
    Pause,
    Resume,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    /// The fast phase is over.
    Refused,
    /// The target ended the relation.
    Gone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        4 => Just(End::Done),
        2 => Just(End::Failed),
        1 => Just(End::Refused),
        1 => Just(End::Gone),
    ];
    let step = prop_oneof![
        6 => (1..4_u8).prop_map(Step::Push),
        6 => any::<bool>().prop_map(|begin| Step::Plan { begin }),
        1 => Just(Step::Decide),
        2 => Just(Step::Record),
        6 => (0..2_usize).prop_map(|process| Step::Begin { process }),
        8 => end.prop_map(Step::End),
        2 => Just(Step::TakeOver),
        1 => Just(Step::Start),
        2 => Just(Step::Wait),
        2 => any::<bool>().prop_map(|hard| Step::Freeze { hard }),
        2 => Just(Step::Thaw),
        2 => (0..4_u8).prop_map(Step::Rollback),
        2 => Just(Step::Release),
        1 => Just(Step::RollOut),
        2 => Just(Step::Retry),
        1 => Just(Step::Cancel),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..50)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no command line that could read the environment"
)]
fn variable(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok().and_then(|text| text.parse().ok());
    value.unwrap_or(default)
}

#[test]
fn no_walk_breaks_a_rule_and_without_holds_the_wanted_set_is_reached() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seed = variable("WALK_SEED", 1);
    let until = Instant::now() + Duration::from_secs(variable("WALK_SECONDS", 20));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let db = runtime.block_on(tagtrail_testkit::postgres());
    let mut sql = runtime.block_on(db.connect());
    // No walk outlives the server.
    let quick = sqlx::raw_sql("set synchronous_commit = off");
    runtime.block_on(quick.execute(&mut sql)).unwrap();
    let mut number = 0;
    let mut walk = |steps: &[Step]| {
        number += 1;
        runtime.block_on(World::walk(&mut sql, number, steps))
    };
    let (mut walks, strategy) = (0, steps());
    while Instant::now() < until {
        let mut tree = strategy.new_tree(&mut runner).unwrap();
        walks += 1;
        let Err(broken) = walk(&tree.current()) else {
            continue;
        };
        // The shortest walk that breaks a rule.
        let (mut least, mut broken) = (tree.current(), broken);
        let patience = Instant::now() + Duration::from_secs(30);
        let mut smaller = tree.simplify();
        while smaller && Instant::now() < patience {
            match walk(&tree.current()) {
                Err(error) => {
                    (least, broken) = (tree.current(), error);
                    smaller = tree.simplify();
                }
                Ok(()) => smaller = tree.complicate(),
            }
        }
        panic!("walk {walks} of WALK_SEED={seed}: {broken}\n{least:#?}");
    }
    assert!(walks > 2, "only {walks} walks in the time");
}
