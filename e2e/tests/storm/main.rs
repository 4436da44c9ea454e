//! The storm: all services run as separate processes, and random faults hit them for a while. After
//! the storm, every promise must hold within a minute.
//!
//! The seed decides the events and the faults; their timing also depends on the machine.
//! `make faults SEED=…` runs another seed than the tests, and for longer.

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

mod chats;
mod checks;
mod clusters;
mod commands;
mod events;
mod gates;
mod oracle;
mod paced;
mod people;
mod reports;
mod repositories;
mod rollouts;
mod senders;
mod skewed;
mod teams;
mod versions;
mod wanted;
mod weather;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::events::Expected;
use crate::world::{TRIGGERS, World};

/// Longest time after the storm until all checks must pass.
const RECOVERY: Duration = Duration::from_secs(60);
/// Time in which an answer that arrives after the checks must be recorded.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Largest memory of each process, in MiB.
const MEMORY: u64 = 400;

/// Reads a number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_every_promise_holds() {
    let seed = setting("FAULTS_SEED", 3);
    let over = Duration::from_secs(setting("FAULTS_SECONDS", 40));
    let count = u32::try_from(setting("FAULTS_EVENTS", 1000)).unwrap();
    println!(
        "seed {seed}: {count} events and random faults over {} s; then about a minute to recover and check",
        over.as_secs()
    );

    let world = Arc::new(World::start(seed, setting("FAULTS_NATS", 1)).await);
    let start = OffsetDateTime::now_utc() - time::Duration::hours(2);
    let (requests, mut pushes) = events::requests(seed, count, start);
    let (versions, reported) = versions::requests(seed, count * 3 / 10, start);
    let requests = senders::merge(requests, versions);
    pushes.extend(reported);
    let storm = weather::weather(Arc::clone(&world), seed, Instant::now() + over);
    let acting = people::act(Arc::clone(&world), seed, Instant::now() + over);
    let sending = senders::send(requests, world.gateways.clone(), over);
    let changing = skewed::send(
        &world.asked,
        seed,
        world.gateways.clone(),
        Instant::now() + over,
    );
    let is_over = Arc::new(AtomicBool::new(false));
    let reporting = reports::report(Arc::clone(&world), seed, Arc::clone(&is_over));
    let reporting = tokio::spawn(reporting);
    let (happened, acts, sent, reported) = tokio::join!(storm, acting, sending, changing);
    pushes.extend(reported);

    is_over.store(true, Ordering::Relaxed);
    world.heal().await;
    people::heal(&world).await;
    let healed = Instant::now();
    // A last push of each trigger's images: after it, each trigger starts a rollout without waiting
    // for the back-off of an attempt that failed in the storm.
    let mut last: Vec<_> = TRIGGERS
        .iter()
        .flat_map(|(_, images)| images.iter())
        .map(|(source, image)| (*source, image.split_once(':').unwrap()))
        .collect();
    last.extend(teams::last_pushes());
    last.sort_unstable();
    last.dedup();
    let last: Vec<_> = (100..)
        .zip(last)
        .map(|(n, (source, (repository, tag)))| {
            events::push(source, repository, tag, n, OffsetDateTime::now_utc())
        })
        .collect();
    pushes.extend(last.iter().filter_map(|request| match &request.expected {
        Expected::Recorded(key) => Some(key.clone()),
        _ => None,
    }));
    senders::send(last, world.gateways.clone(), Duration::from_millis(10)).await;

    // The breach that was mended last, for the closing line.
    let mut mended = String::new();
    let counts = loop {
        match checks::all(&world, &pushes).await {
            Ok(counts) => break counts,
            Err(wrong) if healed.elapsed() > RECOVERY => {
                let after = healed.elapsed();
                let unsettled = gates::unsettled(&world).await;
                panic!(
                    "seed {seed}: {after:?} after the storm: {wrong}\n{happened:#?}\n{acts:#?}\n{unsettled}"
                )
            }
            Err(wrong) => {
                mended = format!(" (the last check to pass: {wrong:.300})");
                sleep(Duration::from_millis(500)).await;
            }
        }
    };
    let well = healed.elapsed();
    // The state must last: work still under way must not change it. A second answer of the registry
    // may arrive between two checks, and is being recorded then.
    sleep(Duration::from_secs(3)).await;
    let later = Instant::now();
    while let Err(wrong) = checks::all(&world, &pushes).await {
        assert!(
            later.elapsed() < LAST_ANSWER,
            "seed {seed}: all checks passed, and later: {wrong}"
        );
        sleep(Duration::from_millis(500)).await;
    }
    reporting.abort();
    let mut largest = 0;
    for member in &world.members {
        let resident = member.resident().await.unwrap_or(0);
        assert!(resident < MEMORY, "{} uses {resident} MiB", member.name);
        largest = largest.max(resident);
    }
    let number = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "all checks passed {:.1} s after the storm{mended}: {} pushes, {} revisions ({} late), {} rollouts delivered {} times, {} take-overs; \
         {} requests accepted, {} refused, {} sent again; {largest} MiB at most; {} faults: {happened:?}; {} acts of people: {acts:?}",
        well.as_secs_f64(),
        counts.pushes,
        counts.revisions,
        counts.late,
        counts.rollouts,
        counts.deliveries,
        counts.fences,
        number(&sent.accepted),
        number(&sent.refused),
        number(&sent.again),
        happened.values().sum::<u32>(),
        acts.values().sum::<u32>(),
    );
}
