//! Webhooks whose pushes are synced, against a gateway that publishes one by one to one stream: the
//! effect of groups of pushes and of several streams.

use std::path::Path;

use tagtrail_testkit::TestPostgres;

use crate::http::{Clients, load};
use crate::pairs;
use crate::report::{Goal, Row, Series};
use crate::serve::{goal_of_synced, hook, start_gateway};
use crate::stack::Stack;

/// A way of storing pushes.
struct Variant {
    name: &'static str,
    streams: &'static str,
    /// As `TAGTRAIL_NATS_SYNC_ALWAYS` of the gateway: it publishes in groups.
    groups: &'static str,
}

/// The first is the one that the others are compared with.
const VARIANTS: [Variant; 3] = [
    Variant {
        name: "one stream, one by one",
        streams: "1",
        groups: "false",
    },
    Variant {
        name: "one stream",
        streams: "1",
        groups: "true",
    },
    Variant {
        name: "eight streams",
        streams: "8",
        groups: "true",
    },
];

/// Measures all ways in turn, with 32 and 128 connections.
pub(crate) async fn measure(
    postgres: &TestPostgres,
    folder: &Path,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    let mut gateways = Vec::new();
    for (number, variant) in VARIANTS.iter().enumerate() {
        let folder = folder.join(format!("streams{number}"));
        let database = pairs::empty(postgres, &format!("streams{number}")).await?;
        let program = tagtrail_testkit::binary();
        let environment = [("TAGTRAIL_PUSH_STREAMS", variant.streams)];
        let stack = Stack::start_with(&program, &folder, true, database, &environment).await?;
        let groups = [("TAGTRAIL_NATS_SYNC_ALWAYS", variant.groups)];
        let (gateway, address) = start_gateway(&stack, &folder, &groups).await?;
        gateways.push((stack, gateway, address));
    }
    let mut rows = Vec::new();
    for connections in [32, 128] {
        let clients = Clients {
            connections,
            ..Clients::during(seconds)
        };
        let [mut rates, mut p99s] = [(); 2].map(|()| VARIANTS.map(|_| Series::default()));
        for round in 0..rounds {
            eprintln!(
                "webhooks, synced, {connections} connections: round {} of {rounds}",
                round + 1
            );
            let mut order: Vec<usize> = (0..VARIANTS.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for number in order {
                let (_, _, address) = &gateways[number];
                let hooks = hook(address, "/hooks/ci", connections * 1000 + round);
                let stored = load(address, clients, 202, hooks).await?;
                rates[number].push(stored.rate);
                p99s[number].push(stored.p99);
            }
        }
        rows.extend(compared(connections, rates, p99s));
    }
    for (_, gateway, _) in gateways {
        gateway.stop().await;
    }
    Ok(rows)
}

/// Returns the lines of a number of connections. The goal is for eight streams, as shipped.
fn compared(
    connections: usize,
    rates: [Series; VARIANTS.len()],
    p99s: [Series; VARIANTS.len()],
) -> Vec<Row> {
    let goal = goal_of_synced(connections);
    let single = rates[0].clone();
    let ways = VARIANTS.iter().zip(rates.into_iter().zip(p99s));
    let rows = ways
        .enumerate()
        .flat_map(|(number, (variant, (rate, p99)))| {
            let name = format!(
                "webhook to 202, each push synced, {connections} connections, {}",
                variant.name
            );
            let time = Row::alone(format!("{name}, p99"), "ms", p99.warmed(), Goal::None);
            let rate = if number == 0 {
                Row::alone(name, "req/s", rate.warmed(), Goal::None)
            } else {
                Row::against(name, "req/s", rate, single.clone(), goal)
            };
            [rate, time]
        });
    rows.collect()
}
