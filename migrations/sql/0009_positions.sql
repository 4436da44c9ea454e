-- Three rows of `position` that do not belong to a partition get tables of their own, so that each
-- table has one writer. `position` keeps PUSHES, by partition, and MANIFESTS.
--
-- The rows are copied, not moved: indexers of the version before this one go on with their rows
-- until they are replaced. Planners of that version stop before the migration, because grants.sql
-- takes their right on `position`. A copy that falls behind is harmless: a sweep compares more, the
-- planner reads more. The first migration after the next release deletes the old rows.

create table sweep (
    stream text primary key check (stream in ('PUSHES', 'REVISIONS')),
    stream_created_ns bigint,
    applied_seq bigint not null default 0,
    applied_time_ns bigint,
    done_at timestamptz
);
comment on table sweep is 'How far the indexer has compared each stream with Postgres.';
comment on column sweep.stream is 'PUSHES: messages compared with push. REVISIONS: messages known to be in revision.';
comment on column sweep.stream_created_ns is
    'When the stream was created, which tells a recreated stream from the old one; null: nothing was compared yet.';
comment on column sweep.applied_seq is 'Last message that was compared.';
comment on column sweep.applied_time_ns is 'Time of that message by the clock of the stream.';
comment on column sweep.done_at is 'End of the last sweep; kept in the row PUSHES.';

insert into sweep (stream, stream_created_ns, applied_seq, applied_time_ns, done_at)
select split_part(stream, ',', 1), stream_created_ns, applied_seq, applied_time_ns, recorded_at
from position where stream in ('PUSHES, swept', 'REVISIONS, known') and partition = 0;

create table planner_position (
    stream text primary key default 'REVISIONS' check (stream = 'REVISIONS'),
    stream_created_ns bigint,
    applied_seq bigint not null default 0,
    applied_time_ns bigint
);
comment on table planner_position is 'How far the planner has read REVISIONS. One row, or none before the first start.';
comment on column planner_position.stream_created_ns is
    'When the stream was created, which tells a recreated stream from the old one.';
comment on column planner_position.applied_seq is 'Last message that was planned on.';
comment on column planner_position.applied_time_ns is 'Time of that message by the clock of the stream.';

insert into planner_position (stream, stream_created_ns, applied_seq, applied_time_ns)
select stream, stream_created_ns, applied_seq, applied_time_ns
from position where stream = 'REVISIONS' and partition = 0;
