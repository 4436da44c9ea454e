-- Views for reports whose answers stay: changes of rollouts, which are only added to; changes of
-- tags without the push behind each, which costs less; and the numbers of the coverage report.

create view report.change as
    select r.registry, r.name as repository, t.name as tag, r.registry || '/' || r.name || ':' || t.name as image,
           v.number as revision, v.kind::text as kind, report.digest(v.digest) as digest,
           v.previous as previous_revision, v.late, v.effective_at as occurred_at, v.recorded_at
    from revision v
    join tag t on t.id = v.tag_id
    join repository r on r.id = t.repository_id;
comment on view report.change is 'Every revision, without the push behind it: for numbers of changes.';

create view report.rollout_change as
    select o.id, t.name as trigger, t.labels ->> 'team' as team, o.number, o.cause ->> 'reason' as cause,
           c.ordinal, c.state::text as state, o.created_at, c.changed_at
    from rollout_change c
    join rollout o on o.id = c.rollout_id
    join trigger t on t.id = o.trigger_id;
comment on view report.rollout_change is 'Every change of state of every rollout. Rows are only added.';

create view report.coverage as
    select period::text as period, starts_at, registry, source, event, resolved, observed, reconciled, reordered, imported,
           signatures, last_event_at
    from coverage;
comment on view report.coverage is 'Numbers of changes by the way in which they became known, by hour and by day (UTC).';

-- Reports read the changes of some weeks; they arrive in the order of time.
create index rollout_change_at on rollout_change using brin (changed_at) with (pages_per_range = 32);
