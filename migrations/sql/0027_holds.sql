-- Holds, and the orders of people that record or end rollouts.

create type hold_kind as enum ('freeze', 'pin', 'fault');

create function image_set(images jsonb) returns text
language sql immutable parallel safe as $$
    select encode(sha256(convert_to(string_agg(i.key || '=' || (i.value ->> 'digest'), ' ' order by i.key collate "C"), 'UTF8')), 'hex')
    from jsonb_each(images) i
$$;
comment on function image_set(jsonb) is
    'The identity of a set of pinned images: two rollouts with equal names and digests have the same.';

create table hold (
    id bigint generated always as identity primary key,
    kind hold_kind not null,
    triggers text not null check (triggers ~ '^[a-z0-9*-]{1,63}$'),
    reason text check (length(reason) between 1 and 500),
    hard boolean not null default false,
    images jsonb,
    rollout_id uuid references rollout,
    actor text not null,
    created_at timestamptz not null default now(),
    until timestamptz,
    released_at timestamptz,
    released_by text,
    check ((kind = 'pin') = (images is not null)),
    check (kind = 'freeze' or triggers !~ '[*]'),
    check (kind = 'freeze' or not hard),
    check ((released_at is null) = (released_by is null))
);
create index hold_unreleased on hold (kind, triggers) where released_at is null;
comment on table hold is 'Recorded reasons not to begin rollouts. In force: not released, and until has not passed.';
comment on column hold.kind is 'freeze: no new set. pin: no set but this one. fault: something unexpected happened.';
comment on column hold.triggers is 'Name of a trigger; of a freeze, perhaps a pattern with *.';
comment on column hold.hard is 'The freeze also holds sets that have succeeded before.';
comment on column hold.images is 'The pinned set.';
comment on column hold.rollout_id is 'The rollout behind a fault.';

create function keep_hold() returns trigger language plpgsql as $$
begin
    raise exception 'a hold is released once, and never deleted'
        using errcode = 'restrict_violation';
end $$;
create trigger released_once before update on hold for each row when (old.released_at is not null) execute function keep_hold();
create trigger keep_all before delete on hold for each row execute function keep_hold();
create trigger keep_all_truncate before truncate on hold for each statement execute function keep_hold();

create table rollout_order (
    id bigint generated always as identity primary key,
    act_id bigint not null references act,
    trigger_id integer not null references trigger,
    kind text not null check (kind in ('rollout', 'release', 'cancel')),
    cause text not null,
    images jsonb,
    rollout_id uuid references rollout,
    skip text[] not null default '{}',
    again boolean not null default false,
    actor text not null,
    reason text,
    ordered_at timestamptz not null default now(),
    done_at timestamptz,
    answer text,
    recorded uuid references rollout
);
create index rollout_order_open on rollout_order (trigger_id, id) where done_at is null;
create index rollout_order_of_act on rollout_order (act_id);
comment on table rollout_order is 'Orders of people that the planner carries out, oldest first.';
comment on column rollout_order.cause is 'Cause of the rollout to be recorded.';
comment on column rollout_order.images is 'The set to roll out; null: the present one.';
comment on column rollout_order.rollout_id is 'The rollout to be cancelled.';
comment on column rollout_order.skip is 'Gates that the rollout passes though they are closed.';
comment on column rollout_order.again is 'The set is rolled out also if it is that of the last rollout.';
comment on column rollout_order.answer is 'The effect, for people.';
comment on column rollout_order.recorded is 'The rollout that followed.';

alter table rollout add column actor text;
alter table rollout add column reason text;
alter table rollout add column skip text[] not null default '{}';
alter table rollout add column fixed boolean not null default false;
comment on column rollout.actor is 'The person who ordered the rollout; null: none did.';
comment on column rollout.skip is 'Gates that the rollout passes by order of a person.';
comment on column rollout.fixed is 'A person chose the set: it need not be that of the present heads.';
create index rollout_known on rollout (trigger_id, image_set(images)) where state = 'succeeded';

alter table trigger add column touched boolean not null default false;
comment on column trigger.touched is 'A hold changed, and the planner has not evaluated the gates since.';
