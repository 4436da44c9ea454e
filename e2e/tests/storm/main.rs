//! The storm: all services as processes of their own, and everything that can happen to them at once, for a while. Then it ends, and
//! within a minute every promise must hold.
//!
//! The seed decides what is sent and what goes wrong; `make faults SEED=…` runs another one than the tests do, and for longer.
//! (What the machine makes of it in time is not repeated.)

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test has neither a log nor flags of its own"
)]

mod checks;
mod events;
mod oracle;
mod rollouts;
mod senders;
mod weather;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::events::Kind;
use crate::world::{TRIGGERS, World};

/// After the storm all must be well in this time.
const LIVELY: Duration = Duration::from_secs(60);
/// No process may need more memory than this, in MiB.
const MEMORY: u64 = 400;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_every_promise_holds() {
    let seed = setting("FAULTS_SEED", 3);
    let over = Duration::from_secs(setting("FAULTS_SECONDS", 40));
    let count = u32::try_from(setting("FAULTS_EVENTS", 1000)).unwrap();
    println!(
        "seed {seed}: {count} events over {} s, while everything goes wrong; about a minute more to heal and to look",
        over.as_secs()
    );

    let world = Arc::new(World::start(seed, setting("FAULTS_NATS", 1)).await);
    let start = OffsetDateTime::now_utc() - time::Duration::hours(2);
    let (events, mut facts) = events::events(seed, count, start);
    let storm = weather::weather(Arc::clone(&world), seed, Instant::now() + over);
    let sending = senders::send(events, world.gateways.clone(), over);
    let (happened, sent) = tokio::join!(storm, sending);

    world.heal().await;
    let healed = Instant::now();
    // What each trigger is to reach in the end: an attempt that failed in the storm may be long in coming again.
    let last = TRIGGERS
        .iter()
        .flat_map(|(_, images)| images.iter())
        .zip(0..);
    let last: Vec<_> = last
        .map(|((source, image), n)| {
            let (repository, tag) = image.split_once(':').unwrap();
            events::push(source, repository, tag, 100 + n, OffsetDateTime::now_utc())
        })
        .collect();
    facts.extend(last.iter().filter_map(|event| match &event.kind {
        Kind::Fact(key) => Some(key.clone()),
        _ => None,
    }));
    senders::send(last, world.gateways.clone(), Duration::from_millis(10)).await;

    let counts = loop {
        match checks::all(&world, &facts).await {
            Ok(counts) => break counts,
            Err(wrong) if healed.elapsed() > LIVELY => {
                panic!(
                    "seed {seed}: {:?} after the storm: {wrong}\n{happened:#?}",
                    healed.elapsed()
                )
            }
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    };
    let well = healed.elapsed();
    // It must stay so: what was still under way must not undo it.
    sleep(Duration::from_secs(3)).await;
    if let Err(wrong) = checks::all(&world, &facts).await {
        panic!("seed {seed}: all was well, and then: {wrong}");
    }
    let mut largest = 0;
    for member in &world.members {
        let resident = member.resident().await.unwrap_or(0);
        assert!(resident < MEMORY, "{} needs {resident} MiB", member.name);
        largest = largest.max(resident);
    }
    let number = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "all well {:.1} s after the storm: {} facts, {} revisions ({} late), {} rollouts told {} times, {} take-overs; \
         {} requests accepted, {} refused, {} sent again; {largest} MiB at most; {} faults: {happened:?}",
        well.as_secs_f64(),
        counts.facts,
        counts.revisions,
        counts.late,
        counts.rollouts,
        counts.deliveries,
        counts.fences,
        number(&sent.accepted),
        number(&sent.refused),
        number(&sent.again),
        happened.values().sum::<u32>(),
    );
}
