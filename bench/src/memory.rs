//! Resident memory of each service: idle, under load, and while the indexer drains a backlog.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tagtrail_testkit::free_address;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cpu::resident;
use crate::drain::{Pids, drain};
use crate::http::{Clients, load};
use crate::report::{Goal, Row};
use crate::serve::{configuration, hook};
use crate::stack::Stack;

/// The goal for each service, in MiB.
const MOST: f64 = 100.0;

/// Measures all services while webhooks arrive for some seconds and an indexer drains a backlog.
pub(crate) async fn all(
    stack: &Stack,
    pids: Pids,
    folder: &Path,
    backlog: usize,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    eprintln!("memory: a backlog of {backlog} pushes");
    let config = configuration(folder)?;
    let (listen, api) = (free_address(), free_address());
    let environment = [
        ("TAGTRAIL_CONFIG", config.to_str().context("no path")?),
        ("TAGTRAIL_GATEWAY_LISTEN", &listen),
        ("TAGTRAIL_API_LISTEN", &api),
        ("BENCH_SECRET", crate::serve::SECRET),
    ];
    let names = ["gateway", "resolver", "trigger", "api"];
    let mut services = Vec::new();
    for name in names {
        let service = stack.service(name, &environment);
        service.ready().await?;
        services.push(service);
    }
    let others: Vec<u32> = services
        .iter()
        .map(|service| service.process.pid())
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = others.iter().map(|pid| resident(*pid).unwrap_or(f64::NAN));
    let idle: Vec<f64> = idle.collect();

    let over = CancellationToken::new();
    let mut watching = JoinSet::new();
    watching.spawn(maxima(others, over.clone()));
    let hooks = load(
        &listen,
        Clients::during(seconds),
        202,
        hook(&listen, "/hooks/ci", 1_000),
    )
    .await?;
    // The indexer drains the pushes of the webhooks too; some of them may change no tag.
    stack.prefill(backlog).await?;
    let pushed = (hooks.rate * seconds as f64) as usize;
    let drained = drain(stack, pids, backlog + pushed, false).await?;
    over.cancel();
    let most = watching
        .join_next()
        .await
        .context("no memory was sampled")??;
    for service in services {
        service.stop().await;
    }

    let row = |name: String, value: f64| Row::once(name, "MiB", value, Goal::AtMost(MOST));
    let mut rows = Vec::new();
    for ((name, idle), most) in names.iter().zip(idle).zip(most) {
        rows.push(row(format!("memory of the {name}, idle"), idle));
        rows.push(row(
            format!("memory of the {name}, at most, webhooks and a backlog of {backlog}"),
            most,
        ));
    }
    rows.push(row(
        format!("memory of the indexer, at most, draining {backlog}"),
        drained.resident,
    ));
    rows.push(row(
        format!("memory of the indexer, idle after draining {backlog}"),
        drained.idle,
    ));
    Ok(rows)
}

/// Returns the greatest memory of each process until `over`, from ten samples a second.
async fn maxima(pids: Vec<u32>, over: CancellationToken) -> Vec<f64> {
    let mut most = vec![0.0; pids.len()];
    while !over.is_cancelled() {
        for (most, pid) in most.iter_mut().zip(&pids) {
            *most = resident(*pid).unwrap_or(0.0).max(*most);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}
