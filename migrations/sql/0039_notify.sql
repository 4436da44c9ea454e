-- Messages about rollouts: how far each receiver has been told.

create table notify_position (
    name text primary key check (name ~ '^[a-z0-9-]{1,63}$'),
    stream_created_ns bigint,
    applied_seq bigint not null check (applied_seq >= 0),
    applied_time_ns bigint
);
comment on table notify_position is 'The last message of ROLLOUTS that each [[notify]] entry has delivered or dropped.';

create table notify_failure (
    name text not null references notify_position on delete cascade,
    rollout_id uuid not null references rollout on delete cascade,
    told_at timestamptz not null default now(),
    primary key (name, rollout_id)
);
comment on table notify_failure is 'Failed rollouts that a receiver knows: it is told again after a day.';
comment on column notify_failure.told_at is 'Time of the last message about the failure.';
