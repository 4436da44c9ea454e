-- Lead times without a look-up of each revision: the time of the push stands beside the images of
-- a rollout.

alter table rollout_image add column changed boolean, add column pushed_at timestamptz;
comment on column rollout_image.changed is 'True if the image differs from the rollout before.';
comment on column rollout_image.pushed_at is 'Effective time of the revision. Null: the digest has none.';

create or replace function record_rollout_images() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into rollout_image (rollout_id, name, tag_id, number, digest, changed, pushed_at)
    select o.id, i.key, g.id, coalesce((i.value ->> 'revision')::bigint, 0), decode(split_part(i.value ->> 'digest', ':', 2), 'hex'),
           coalesce(o.cause -> 'changed' ? i.key, false),
           (select v.effective_at from revision v where v.tag_id = g.id and v.number = (i.value ->> 'revision')::bigint)
    from added o
    cross join lateral jsonb_each(o.images) i
    left join repository r on r.registry = split_part(i.value ->> 'image', '/', 1)
        and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
    left join tag g on g.repository_id = r.id and g.name = substring(i.value ->> 'image' from '[^:]+$')
    where i.value ->> 'digest' ~ '^[a-z0-9]+:([0-9a-f]{64}|[0-9a-f]{128})$';
    return null;
end $$;

update rollout_image d
set changed = coalesce((select o.cause -> 'changed' ? d.name from rollout o where o.id = d.rollout_id), false),
    pushed_at = (select v.effective_at from revision v where v.tag_id = d.tag_id and v.number = d.number);

-- Joins to the left, so that a question that needs fewer columns reads fewer tables. Each row of
-- the first table has its rows in the others.
create or replace view report.rollout_change as
    select c.rollout_id as id, t.name as trigger, t.labels ->> 'team' as team, o.number, o.cause ->> 'reason' as cause,
           c.ordinal, c.state::text as state, o.created_at, c.changed_at
    from rollout_change c
    left join rollout o on o.id = c.rollout_id
    left join trigger t on t.id = o.trigger_id;

create or replace view report.change as
    select r.registry, r.name as repository, t.name as tag, r.registry || '/' || r.name || ':' || t.name as image,
           v.number as revision, v.kind::text as kind, report.digest(v.digest) as digest,
           v.previous as previous_revision, v.late, v.effective_at as occurred_at, v.recorded_at, v.tag_id as tag_key
    from revision v
    left join tag t on t.id = v.tag_id
    left join repository r on r.id = t.repository_id;
comment on column report.change.tag_key is 'A number for the registry, repository and tag together: groups and joins by it cost less.';

create view report.rollout_push as
    select d.rollout_id as id, d.name, r.registry || '/' || r.name || ':' || t.name as image, d.number as revision,
           d.changed, d.pushed_at
    from rollout_image d
    left join tag t on t.id = d.tag_id
    left join repository r on r.id = t.repository_id
    where d.pushed_at is not null;
comment on view report.rollout_push is 'The images of each rollout, with the time of the push.';
