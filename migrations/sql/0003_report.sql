-- What people with SQL and BI tools may rely on: views with names, types and meanings that stay, whatever becomes of the tables.
-- A column is never taken away or given another meaning; new ones may come at the end. docs/reports.md explains them.

create schema report;
comment on schema report is 'Stable views for people and BI tools. Read these, not the tables.';

create function report.digest(bytes bytea) returns text language sql immutable parallel safe as $$
    select case octet_length(bytes) when 32 then 'sha256:' when 64 then 'sha512:' end || encode(bytes, 'hex')
$$;
comment on function report.digest(bytea) is 'A digest as the OCI specification writes it.';

create view report.history as
    select r.registry, r.name as repository, t.name as tag, r.registry || '/' || r.name || ':' || t.name as image,
           v.number as revision, v.kind::text as kind, report.digest(v.digest) as digest,
           r.registry || '/' || r.name || '@' || report.digest(v.digest) as pinned,
           v.previous as previous_revision, report.digest(before.digest) as previous_digest, v.late,
           v.effective_at as occurred_at,
           -- By index for each row: reports are about some tags or some time, seldom about everything.
           (select n.effective_at from revision n
            where n.tag_id = v.tag_id and (n.effective_at, n.number) > (v.effective_at, v.number)
            order by n.effective_at, n.number limit 1) as until,
           v.recorded_at, p.origin::text as origin, p.source, p.actor, p.media_type, p.size_bytes
    from revision v
    join tag t on t.id = v.tag_id
    join repository r on r.id = t.repository_id
    join push p on p.id = v.push_id
    left join revision before on before.tag_id = v.tag_id and before.number = v.previous;
comment on view report.history is 'Every revision: what an image was from occurred_at until the next one.';
comment on column report.history.until is 'When the next revision in time took its place; null: it is in force.';
comment on column report.history.late is 'News about the past: it was not the head when it was recorded.';

create view report.head as
    select r.registry, r.name as repository, t.name as tag, r.registry || '/' || r.name || ':' || t.name as image,
           v.number as revision, v.kind::text as kind, report.digest(v.digest) as digest,
           r.registry || '/' || r.name || '@' || report.digest(v.digest) as pinned,
           v.digest is null as deleted, v.effective_at as occurred_at, v.recorded_at, t.issued as revisions,
           p.origin::text as origin, p.source, p.actor
    from tag t
    join repository r on r.id = t.repository_id
    join revision v on v.tag_id = t.id and v.number = t.head
    join push p on p.id = v.push_id;
comment on view report.head is 'What every image is now, deleted ones included.';
comment on column report.head.revisions is 'How many revisions the image has had.';

create view report.push as
    select r.registry, r.name as repository, t.name as tag, p.action::text as action,
           case when p.tag_id is not null then 'tag' when p.digest is not null then 'digest' else 'repository' end as scope,
           report.digest(p.digest) as digest, p.occurred_at, p.occurred_at_source::text as occurred_at_source, p.effective_at,
           p.received_at, p.recorded_at, p.origin::text as origin, p.source, p.actor, p.event_id, p.media_type, p.size_bytes
    from push p
    left join tag t on t.id = p.tag_id
    join repository r on r.id = coalesce(p.repository_id, t.repository_id);
comment on view report.push is 'Every fact that was reported, those that changed nothing included.';
comment on column report.push.scope is 'What a delete removed: one tag, one digest with all its tags, or everything.';

create view report.rollout as
    select o.id, t.name as trigger, o.number, o.state::text as state, o.cause ->> 'reason' as cause,
           i.key as name, i.value ->> 'image' as image, (i.value ->> 'revision')::bigint as revision,
           i.value ->> 'digest' as digest, i.value ->> 'pinned' as pinned,
           coalesce(o.cause -> 'changed' ? i.key, false) as changed,
           o.attempts, o.created_at, o.started_at, o.finished_at, o.error
    from rollout o
    join trigger t on t.id = o.trigger_id
    cross join lateral jsonb_each(o.images) i;
comment on view report.rollout is 'Every rollout, one row for each of its images.';
comment on column report.rollout.changed is 'Whether this image differs from the rollout before.';
