//! The statement of each report. `:name` is a value of the question.

use crate::reports::{Parts, Report};

/// All reports.
pub const ALL: &[Report] = &[
    Report {
        name: "deployments",
        title: "Deployments",
        about: "Rollouts by the day (UTC) on which they ended, and by their end.",
        columns: &[
            ("day", "the day (UTC)"),
            ("succeeded", "rollouts that succeeded"),
            ("superseded", "rollouts that a newer one replaced"),
            ("failed", "rollouts that failed"),
            ("cancelled", "rollouts that a person cancelled or rejected"),
        ],
        of_rollouts: true,
        known_at: true,
        statement: |parts| {
            format!(
                "{}
select to_char((changed_at at time zone 'utc')::date, 'YYYY-MM-DD') as day,
       count(*) filter (where state = 'succeeded') as succeeded,
       count(*) filter (where state = 'superseded') as superseded,
       count(*) filter (where state = 'failed') as failed,
       count(*) filter (where state in ('cancelled', 'rejected')) as cancelled
from ended e
where changed_at < :to{}
group by (changed_at at time zone 'utc')::date
having count(*) filter (where state in ('succeeded', 'superseded', 'failed', 'cancelled', 'rejected')) > 0
order by 1",
                ended(parts),
                with_image(parts)
            )
        },
    },
    Report {
        name: "lead-time",
        title: "Lead time, push to deployed",
        about: "Time from the push of an image to the end of the rollout that deployed it, by week. First rollouts, and those that did not succeed, are left out. A push whose webhook was lost counts from the time at which it was found.",
        columns: &[
            ("week", "the Monday of the week (UTC)"),
            ("images", "images that were deployed"),
            ("p50_seconds", "half of them were deployed within this time"),
            ("p90_seconds", "nine of ten were deployed within this time"),
        ],
        of_rollouts: true,
        known_at: true,
        statement: |parts| {
            format!(
                "{}
select to_char(e.week, 'YYYY-MM-DD') as week, count(*) filter (where e.counts) as images,
       round((percentile_cont(0.5) within group (order by e.seconds) filter (where e.counts))::numeric, 3) as p50_seconds,
       round((percentile_cont(0.9) within group (order by e.seconds) filter (where e.counts))::numeric, 3) as p90_seconds
from (
    select date_trunc('week', e.changed_at at time zone 'utc') as week,
           extract(epoch from e.changed_at - p.pushed_at)::float as seconds,
           e.state = 'succeeded' and e.cause = 'revision' and p.changed as counts
    from ended e join report.rollout_push p on p.id = e.id
    where e.changed_at < :to{}) e
group by e.week having count(*) filter (where e.counts) > 0 order by 1",
                ended(parts),
                parts.matches("p.")
            )
        },
    },
    Report {
        name: "rollout-time",
        title: "Time of a rollout",
        about: "Rollouts that succeeded, by the time from planned to done.",
        columns: &[
            ("above_seconds", "longer than this"),
            ("up_to_seconds", "and at most this; none: any time"),
            ("rollouts", "rollouts that took so long"),
        ],
        of_rollouts: true,
        known_at: true,
        statement: |parts| {
            format!(
                "{},
steps as (
    select step, coalesce(lag(step) over (order by step), 0) as above, row_number() over (order by step desc) as place
    from unnest(array[0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 'infinity']::float[]) as step),
-- The lower end of a bucket belongs to it, but the upper end of a step: so the times are negative.
times as (
    select width_bucket(extract(epoch from e.created_at - e.changed_at)::float,
                        (select array_agg(-step order by step desc) || 0::float from steps)) as place,
           count(*) filter (where e.state = 'succeeded') as rollouts
    from ended e
    where e.changed_at < :to{}
    group by 1)
select s.above as above_seconds, nullif(s.step, 'infinity') as up_to_seconds, coalesce(t.rollouts, 0) as rollouts
from steps s left join times t on t.place = s.place
order by s.step",
                ended(parts),
                with_image(parts)
            )
        },
    },
    Report {
        name: "releases-moved",
        title: "Releases that moved",
        about: "Tags that look like a version (v?1.2.3), and got another digest.",
        columns: &[
            ("image", "the image"),
            ("revision", "the revision"),
            ("kind", "moved, reverted, or recreated after a deletion"),
            ("previous_digest", "the digest before; none: it was deleted"),
            ("digest", "the digest from then on"),
            ("occurred_at", "when, by the registry's clock"),
            ("actor", "who pushed"),
            ("seconds_after", "time since the first revision of the tag"),
        ],
        of_rollouts: false,
        known_at: true,
        statement: |parts| {
            format!(
                "select h.image, h.revision, h.kind, h.previous_digest, h.digest, h.occurred_at, h.actor,
       round(extract(epoch from h.occurred_at - f.occurred_at), 3) as seconds_after
from report.history h
join report.change f on f.registry = h.registry and f.repository = h.repository and f.tag = h.tag and f.revision = 1
where h.tag ~ '^v?[0-9]+[.][0-9]+[.][0-9]+$' and h.kind in ('moved', 'reverted', 'recreated') and h.digest is distinct from f.digest
  and h.recorded_at >= :from and h.recorded_at < :to and h.recorded_at <= :known_at{}
order by h.occurred_at desc, h.image",
                parts.matches("h.")
            )
        },
    },
    Report {
        name: "coverage",
        title: "Coverage by registry",
        about: "How each change became known. A change found only by reconciling means a lost webhook.",
        columns: &[
            ("registry", "the registry"),
            ("source", "the source"),
            ("event", "changes that an event reported"),
            (
                "resolved",
                "changes whose event lacked something, so that the registry was asked",
            ),
            ("observed", "changes that only a pull showed"),
            ("reconciled", "changes that only reconciling found"),
            (
                "covered",
                "the share that events reported; none: there was no change",
            ),
        ],
        of_rollouts: false,
        // A change counts as reported once its event arrives, however late.
        known_at: false,
        statement: |_| {
            "select registry, source, sum(event + reordered)::bigint as event, sum(resolved)::bigint as resolved,
       sum(observed)::bigint as observed, sum(reconciled)::bigint as reconciled,
       round(1 - sum(observed + reconciled) / nullif(sum(event + reordered + resolved + observed + reconciled), 0), 6) as covered
from report.coverage
where period = 'hour' and starts_at >= :from and starts_at < :to
group by registry, source
having sum(event + resolved + observed + reconciled + reordered) > 0
order by registry, source"
                .to_owned()
        },
    },
    Report {
        name: "churn",
        title: "Tags that move most",
        about: "The fifty tags with the most changes, and the median time for which they held a digest.",
        columns: &[
            ("image", "the image"),
            ("changes", "changes that were recorded in the time"),
            (
                "median_held_seconds",
                "half of the digests were replaced within this time",
            ),
        ],
        of_rollouts: false,
        known_at: true,
        statement: |parts| {
            format!(
                "with busiest as (
    select tag_key, count(*) as changes, min(revision) as first, max(revision) as last
    from report.change
    where recorded_at >= :from and recorded_at < :to and recorded_at <= :known_at{}
    group by tag_key having count(*) > 1),
most as (
    select b.tag_key, b.changes, b.first, b.last, f.image, f.registry, f.repository, f.tag
    from busiest b join report.change f on f.tag_key = b.tag_key and f.revision = b.first
    where not (f.tag like 'sha%' and f.tag ~ '^sha(256|512)-[0-9a-f]{{64}}([.].+)?$')
    order by b.changes desc, f.registry, f.repository, f.tag limit 50)
select m.image, m.changes,
       (select round((percentile_cont(0.5) within group (order by extract(epoch from n.next - n.occurred_at)))::numeric, 3)
        from (select c.occurred_at, lead(c.occurred_at) over (order by c.occurred_at, c.revision) as next
              from report.change c
              where c.tag_key = m.tag_key and c.revision between m.first and m.last) n
        where n.next is not null) as median_held_seconds
from most m order by m.changes desc, m.image",
                parts.matches("")
            )
        },
    },
    Report {
        name: "running",
        title: "What ran when",
        about: "The images of each trigger, from the end of the rollout that brought them to the end of the one that replaced them. A rollout that leaves an image as it is does not count for it.",
        columns: &[
            ("trigger", "the trigger"),
            ("name", "the name of the image in the trigger"),
            ("image", "the image, with its tag"),
            ("revision", "the revision of the tag"),
            ("digest", "the digest that ran"),
            ("number", "the number of the rollout that brought it"),
            ("since", "when that rollout succeeded"),
            (
                "until",
                "when a rollout with another image succeeded; none: it still runs",
            ),
        ],
        of_rollouts: true,
        known_at: true,
        statement: |parts| {
            // A condition in `case`, because Postgres expects few rows of a plain one on the state.
            format!(
                "with done as (
    select id, trigger, number, changed_at as since, row_number() over w as place, lead(changed_at) over w as until
    from report.rollout_change
    where case state when 'succeeded' then changed_at <= :known_at end{}
    window w as (partition by trigger order by changed_at, ordinal)),
images as (
    select d.trigger, d.number, d.since, d.until, d.place, r.name, r.image, r.revision, r.digest,
           (d.place - 1, r.image, r.digest) is distinct from (lag(d.place) over w, lag(r.image) over w, lag(r.digest) over w) as begins,
           (d.place + 1, r.image, r.digest) is distinct from (lead(d.place) over w, lead(r.image) over w, lead(r.digest) over w) as ends
    from done d join report.rollout r on r.id = d.id{}
    window w as (partition by d.trigger, r.name order by d.place)),
ran as (
    select trigger, name, image, revision, digest, number, since, begins,
           case when ends then until else lead(until) over (partition by trigger, name order by place) end as until
    from images where begins or ends)
select trigger, name, image, revision, digest, number, since, until
from ran
where begins and since < :to and (until is null or until > :from)
order by since desc, trigger, name",
                parts.of_trigger,
                parts.matches("r.")
            )
        },
    },
];

/// The last change of each rollout since the begin. Statements put conditions on its state into
/// aggregates: Postgres expects that such a condition leaves few rows, and would then look up each
/// of very many.
fn ended(parts: &Parts) -> String {
    format!(
        "with last as (
    select id, max(ordinal) as ordinal
    from report.rollout_change
    where changed_at >= :from and changed_at <= :known_at{}
    group by id),
ended as (
    select c.id, c.state, c.cause, c.created_at, c.changed_at
    from last l join report.rollout_change c on c.ordinal = l.ordinal and c.changed_at >= :from)",
        parts.of_trigger
    )
}

/// The condition that a rollout `e` has an image that matches.
fn with_image(parts: &Parts) -> String {
    match parts.has_match {
        true => format!(
            "\n  and exists (select from report.rollout r where r.id = e.id{})",
            parts.matches("r.")
        ),
        false => String::new(),
    }
}
