//! Processor time of `tagtrail up` when nothing happens, and of a lone push.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cpu;
use crate::http::Connection;
use crate::report::{Goal, Row, Series};
use crate::serve::{SECRET, configuration, hook};
use crate::up::Up;

/// Time between two pushes.
const BETWEEN: Duration = Duration::from_secs(2);
/// Time after the start in which the services finish their first work.
const SETTLE: Duration = Duration::from_secs(15);

/// Measures `tagtrail up` with its Postgres and nats-server: idle for some seconds in each round,
/// and then with a push every two seconds.
pub(crate) async fn measure(
    folder: &Path,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    let config = configuration(folder)?;
    let environment = [
        ("TAGTRAIL_CONFIG", config.to_str().context("no path")?),
        ("BENCH_SECRET", SECRET),
    ];
    let Up { process, gateway } = Up::start(&folder.join("up"), &environment).await?;
    tokio::time::sleep(SETTLE).await;
    let [mut own, mut all, mut push] = [(); 3].map(|()| Series::default());
    let during = Duration::from_secs(seconds);
    let request = hook(&gateway, "/hooks/ci", 0);
    let mut number = 0;
    for round in 0..rounds {
        eprintln!("quiet: round {} of {rounds}", round + 1);
        let idle = Used::during(process.pid(), during, async { Ok(()) }).await?;
        own.push(idle.own * 100.0);
        all.push(idle.all * 100.0);
        let pushes = seconds / BETWEEN.as_secs();
        let pushing = async {
            for _ in 0..pushes {
                number += 1;
                let (status, _) = Connection::connect(&gateway)
                    .await?
                    .ask(request(number)?)
                    .await?;
                anyhow::ensure!(status == 202, "answered {status}");
                tokio::time::sleep(BETWEEN).await;
            }
            Ok(())
        };
        let busy = Used::during(process.pid(), during, pushing).await?;
        push.push((busy.all - idle.all) * busy.seconds * 1000.0 / pushes as f64);
    }
    Ok(vec![
        Row::alone(
            "`tagtrail up` when nothing happens, own process",
            "% of a core",
            own,
            Goal::AtMost(0.5),
        ),
        Row::alone(
            "the same with Postgres and nats-server",
            "% of a core",
            all,
            Goal::AtMost(1.2),
        ),
        Row::alone(
            "a lone push, all processes",
            "ms of a core",
            push,
            Goal::AtMost(20.0),
        ),
    ])
}

/// Cores used by `tagtrail up` alone, and with its children.
#[derive(Debug)]
struct Used {
    own: f64,
    all: f64,
    seconds: f64,
}

impl Used {
    /// Measures while some work runs, and at least for a time.
    async fn during(
        pid: u32,
        least: Duration,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Used> {
        let (begun, own, all) = (Instant::now(), cpu::alone(pid), cpu::below(pid));
        let (worked, ()) = tokio::join!(work, tokio::time::sleep(least));
        worked?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Used {
            own: (cpu::alone(pid) - own) / seconds,
            all: (cpu::below(pid) - all) / seconds,
            seconds,
        })
    }
}
