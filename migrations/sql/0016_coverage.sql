-- Numbers of changes by the way in which they became known, so that the coverage report adds up a
-- few rows instead of reading history. The indexer counts in the background. The tables are derived
-- from push and revision: emptied together, they are filled again from the beginning.

create type coverage_period as enum ('hour', 'day');

create table coverage (
    period coverage_period not null,
    starts_at timestamptz not null,
    registry text not null,
    source text not null,
    event bigint not null default 0,
    resolved bigint not null default 0,
    observed bigint not null default 0,
    reconciled bigint not null default 0,
    reordered bigint not null default 0,
    imported bigint not null default 0,
    signatures bigint not null default 0,
    last_event_at timestamptz,
    primary key (period, starts_at, registry, source)
);
comment on table coverage is
    'Numbers of changes recorded in an hour and in a day (UTC), by registry, source and the way in which they became known.';
comment on column coverage.signatures is 'Changes of tags that hold signatures; not among the other numbers.';
comment on column coverage.last_event_at is
    'When the last event of the period was received, or the registry was asked because an event lacked something.';

create table coverage_change (
    tag_id bigint not null,
    effective_at timestamptz not null,
    number bigint not null,
    counted_as text,
    primary key (tag_id, effective_at, number)
);
comment on table coverage_change is
    'The revisions that a later event may count otherwise, and those not counted by the origin of their push.';
comment on column coverage_change.counted_as is 'The column of coverage; null: not counted, because it repeats the digest before it.';

create table coverage_position (
    feed text not null check (feed in ('push', 'revision')),
    partition smallint not null,
    counted bigint not null,
    primary key (feed, partition)
);
comment on table coverage_position is 'How far pushes and revisions are counted in coverage.';
comment on column coverage_position.counted is
    'Of revision: ordinal of the last one of the partition. Of push, one row of partition 0: row id of the last one.';
