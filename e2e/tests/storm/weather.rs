//! The faults of a storm, and their times, chosen by the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{Connection as _, PgConnection};
use tagtrail_testkit::{Answer, Link, NODES};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::clusters;
use crate::world::World;

/// Longer than Postgres keeps a silent session.
const PAUSE: Duration = Duration::from_millis(4500);

/// Starts faults until `end`, and waits until each is over. Returns the number of faults by name.
pub(crate) async fn weather(world: Arc<World>, seed: u64, end: Instant) -> BTreeMap<String, u32> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5707_3211);
    let mut under_way = JoinSet::new();
    let mut happened: BTreeMap<String, u32> = BTreeMap::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(200..1500))).await;
        let world = Arc::clone(&world);
        let fault = Fault::choose(&mut random, &world);
        *happened.entry(fault.name(&world)).or_default() += 1;
        under_way.spawn(async move { fault.happen(&world).await });
    }
    while under_way.join_next().await.is_some() {}
    happened
}

/// A fault, which is undone after a while. Members and their links are given by their indexes.
#[derive(Debug, Clone)]
enum Fault {
    Kill(usize, Duration),
    Pause(usize),
    Restart(usize),
    /// An indexer is stopped while the network holds back its latest messages.
    HeldBack(usize),
    Link(usize, usize, Link, Duration),
    ToSink(Link, Duration),
    Sink(Vec<Answer>),
    Postgres,
    Sessions,
    Nats(usize),
    /// nats-server loses the end of REVISIONS.
    NatsForgets(usize),
    NatsPause(usize, Duration),
    Consumer(usize),
    /// The API server of the cluster is killed.
    Cluster,
    ClusterPause(Duration),
}

impl Fault {
    fn choose(random: &mut StdRng, world: &World) -> Fault {
        let member = random.random_range(0..world.members.len());
        let pause = Duration::from_millis(random.random_range(300..4000));
        let broken = *[
            Link::Cut,
            Link::Reset,
            Link::Silent,
            Link::HalfClosed,
            Link::Slow(Duration::from_millis(300)),
        ]
        .choose(random)
        .unwrap();
        match random.random_range(0..100) {
            0..25 => Fault::Kill(member, pause / 4),
            25..37 => Fault::Pause(member),
            37..44 => Fault::Restart(member),
            44..52 => {
                let indexers = world.members.iter().enumerate();
                let indexers = indexers.filter(|(_, member)| member.name.starts_with("indexer"));
                let indexers: Vec<usize> = indexers.map(|(place, _)| place).collect();
                Fault::HeldBack(*indexers.choose(random).unwrap())
            }
            52..70 => {
                let link = random.random_range(0..world.members[member].links.len());
                Fault::Link(member, link, broken, pause)
            }
            70..74 => Fault::ToSink(broken, pause),
            74..82 => {
                let answers =
                    (0..random.random_range(1..5)).map(|_| match random.random_range(0..5) {
                        0 => Answer::Status(500),
                        1 => Answer::With(429, "retry-after", "1".to_owned()),
                        2 => Answer::Late(Duration::from_secs(3), 200),
                        3 => Answer::Status(503),
                        _ => Answer::Late(Duration::from_secs(1), 500),
                    });
                Fault::Sink(answers.collect())
            }
            82..87 => Fault::Postgres,
            87..91 => Fault::Sessions,
            91..93 => Fault::Nats(random.random_range(0..NODES)),
            93..94 => Fault::NatsForgets(random.random_range(0..NODES)),
            94..95 => Fault::NatsPause(random.random_range(0..NODES), pause),
            95..97 => match random.random_bool(0.5) {
                true => Fault::Cluster,
                false => Fault::ClusterPause(pause),
            },
            _ => Fault::Consumer(random.random_range(0..8)),
        }
    }

    fn name(&self, world: &World) -> String {
        let service = |member: &usize| {
            world.members[*member]
                .name
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        match self {
            Fault::Kill(member, _) => format!("kill -9 {}", service(member)),
            Fault::Pause(member) => format!("stop and continue {}", service(member)),
            Fault::Restart(member) => format!("restart {}", service(member)),
            Fault::HeldBack(_) => "held back and stopped".to_owned(),
            Fault::Link(_, _, link, _) | Fault::ToSink(link, _) => {
                let link = format!("{link:?}");
                format!("link {}", link.split('(').next().unwrap())
            }
            Fault::Sink(_) => "target fails".to_owned(),
            Fault::Postgres => "Postgres crashes".to_owned(),
            Fault::Sessions => "sessions terminated".to_owned(),
            Fault::Nats(_) => "nats-server killed".to_owned(),
            Fault::NatsForgets(_) => "nats-server forgets".to_owned(),
            Fault::NatsPause(..) => "nats-server paused".to_owned(),
            Fault::Consumer(_) => "consumer deleted".to_owned(),
            Fault::Cluster => "API server killed".to_owned(),
            Fault::ClusterPause(_) => "API server paused".to_owned(),
        }
    }

    async fn happen(self, world: &World) {
        match self {
            Fault::Kill(member, pause) => {
                world.members[member].kill().await;
                sleep(pause).await;
                world.members[member].start().await;
            }
            Fault::Pause(member) => {
                world.members[member].signal("STOP").await;
                sleep(PAUSE).await;
                world.members[member].signal("CONT").await;
            }
            Fault::Restart(member) => {
                world.members[member].signal("TERM").await;
                // Another fault may have stopped the process, or cut a link.
                for _ in 0..50 {
                    sleep(Duration::from_millis(100)).await;
                    let mut process = world.members[member].process.lock().await;
                    if process.as_mut().is_none_or(|process| !process.running()) {
                        break;
                    }
                }
                world.members[member].kill().await;
                world.members[member].start().await;
            }
            Fault::HeldBack(member) => {
                let member = &world.members[member];
                let (_, to_nats) = member.links.split_last().unwrap();
                // The indexer still reads, and so has messages to publish.
                to_nats.iter().for_each(|link| link.set(Link::Muted));
                sleep(Duration::from_millis(1000)).await;
                member.signal("STOP").await;
                // Meanwhile another indexer acquires the partitions, and publishes the same
                // revisions.
                sleep(PAUSE).await;
                to_nats.iter().for_each(|link| link.set(Link::Whole));
                sleep(Duration::from_millis(200)).await;
                member.signal("CONT").await;
            }
            Fault::Link(member, link, broken, pause) => {
                let link = &world.members[member].links[link];
                link.set(broken);
                sleep(pause).await;
                link.set(Link::Whole);
            }
            Fault::ToSink(broken, pause) => {
                world.to_sink.set(broken);
                sleep(pause).await;
                world.to_sink.set(Link::Whole);
            }
            Fault::Sink(answers) => world.sink.answer(answers),
            Fault::Postgres => world.postgres.crash().await,
            Fault::Sessions => {
                let Ok(mut admin) = PgConnection::connect(world.postgres.db().url()).await else {
                    return; // Postgres is down.
                };
                let _ = sqlx::query(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where application_name like 'tagtrail-%' and random() < 0.5",
                )
                .execute(&mut admin)
                .await;
            }
            Fault::Nats(server) => world.nats.crash(server).await,
            Fault::NatsForgets(server) => world.nats.forget(server).await,
            Fault::NatsPause(server, pause) => world.nats.pause(server, pause).await,
            Fault::Cluster => world.cluster.signal_api_server("KILL"),
            Fault::ClusterPause(pause) => clusters::pause(&world.cluster, pause).await,
            Fault::Consumer(number) => {
                let Some(client) = world.nats.client().await else {
                    return; // NATS is down.
                };
                let context = async_nats::jetstream::new(client);
                let streams = usize::try_from(world.streams).unwrap();
                let (stream, number) = (world.pushes((number % streams) as u64), number / streams);
                let Ok(stream) = context.get_stream(stream).await else {
                    return;
                };
                let mut names = stream.consumer_names();
                let mut count = 0;
                while let Some(Ok(name)) = futures_util::StreamExt::next(&mut names).await {
                    if count == number {
                        let _ = stream.delete_consumer(&name).await;
                        return;
                    }
                    count += 1;
                }
            }
        }
    }
}
