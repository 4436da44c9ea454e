-- The images of rollouts as rows, so that the rollouts of a digest are found by an index.

create table rollout_image (
    rollout_id uuid not null references rollout,
    name text not null,
    tag_id bigint references tag,
    number bigint not null,
    digest bytea not null check (octet_length(digest) in (32, 64)),
    primary key (rollout_id, name)
);
create index rollout_image_by_digest on rollout_image (digest, rollout_id);
comment on table rollout_image is 'The images of rollouts: a copy of rollout.images, written with the rollout.';
comment on column rollout_image.name is 'Name of the image in the trigger.';
comment on column rollout_image.tag_id is 'Null: no push of the image is recorded.';
comment on column rollout_image.number is 'Number of the revision; 0 for a digest that the tag never had in history.';

-- The rights of the owner: a service that records rollouts need not write this table. The rows of a
-- statement are written at once.
create function record_rollout_images() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into rollout_image (rollout_id, name, tag_id, number, digest)
    select o.id, i.key, g.id, coalesce((i.value ->> 'revision')::bigint, 0), decode(split_part(i.value ->> 'digest', ':', 2), 'hex')
    from added o
    cross join lateral jsonb_each(o.images) i
    left join repository r on r.registry = split_part(i.value ->> 'image', '/', 1)
        and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
    left join tag g on g.repository_id = r.id and g.name = substring(i.value ->> 'image' from '[^:]+$')
    where i.value ->> 'digest' ~ '^[a-z0-9]+:([0-9a-f]{64}|[0-9a-f]{128})$';
    return null;
end $$;
create trigger record_images after insert on rollout referencing new table as added
    for each statement execute function record_rollout_images();

insert into rollout_image (rollout_id, name, tag_id, number, digest)
select o.id, i.key, g.id, coalesce((i.value ->> 'revision')::bigint, 0), decode(split_part(i.value ->> 'digest', ':', 2), 'hex')
from rollout o
cross join lateral jsonb_each(o.images) i
left join repository r on r.registry = split_part(i.value ->> 'image', '/', 1)
    and r.name = substring(i.value ->> 'image' from '^[^/]+/(.*):[^:]+$')
left join tag g on g.repository_id = r.id and g.name = substring(i.value ->> 'image' from '[^:]+$')
where i.value ->> 'digest' ~ '^[a-z0-9]+:([0-9a-f]{64}|[0-9a-f]{128})$';
