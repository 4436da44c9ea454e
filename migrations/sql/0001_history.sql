-- What registries said (push), what it changed (revision), and how far each stream is read (position).
--
-- push and revision are append-only: a fact is never updated, a number never reused. Times are in microseconds, as
-- Postgres keeps them. Digests are the bare bytes: 32 for sha256, 64 for sha512.
--
-- push and revision carry no foreign keys: one session alone writes a partition, tags and repositories are never deleted,
-- and the per-row check would cost a quarter of the write rate.

create type push_action as enum ('push', 'delete');
create type push_origin as enum ('event', 'resolved', 'reconciled', 'imported');
create type time_source as enum ('event', 'received');
create type revision_kind as enum ('created', 'moved', 'reverted', 'deleted', 'recreated');

create table repository (
    id bigint generated always as identity primary key,
    registry text not null,
    name text not null,
    -- Greatest effective time among the facts of the repository itself (deletes of a digest or of all of it).
    -- A fact of one of its tags that is not after it may be changed by them.
    latest_at timestamptz,
    unique (registry, name)
);

create table tag (
    id bigint generated always as identity primary key,
    repository_id bigint not null references repository,
    name text not null,
    -- Greatest revision number issued; 0: the tag is known to the ids only and has no history yet.
    issued bigint not null default 0,
    -- The head: the revision in force at the end of the timeline. A copy of columns of revision, for one-row reads.
    head bigint,
    head_digest bytea,
    head_at timestamptz,
    -- Greatest effective time among the tag's own facts: one that is not after it (or not after the repository's) is late.
    latest_at timestamptz,
    unique (repository_id, name)
) with (fillfactor = 80); -- room for the head to be updated in place

create table push (
    id bigint generated always as identity primary key,
    -- A fact belongs to one tag, or (deletes of a digest or of everything) to a whole repository.
    tag_id bigint,
    repository_id bigint,
    action push_action not null,
    -- The digest that the registry named. A delete of a repository fact with a digest removes that digest, without: everything.
    digest bytea check (octet_length(digest) in (32, 64)),
    -- As sent; effective_at is the same, but at most 60 s after received_at (DESIGN: a sender's clock may be wrong).
    occurred_at timestamptz not null,
    effective_at timestamptz not null,
    occurred_at_source time_source not null,
    -- The stream's own timestamp: one clock for all gateways.
    received_at timestamptz not null,
    recorded_at timestamptz not null,
    origin push_origin not null,
    source text not null,
    event_id text not null,
    actor text,
    media_type text,
    size_bytes bigint,
    -- Where the message stood in PUSHES; a hint for people, never an identity (a stream may be recreated).
    stream_seq bigint not null,
    check ((tag_id is null) <> (repository_id is null)),
    check (tag_id is not null or action = 'delete'),
    check (action = 'delete' or digest is not null)
);

-- The same fact twice is one fact.
create unique index push_is_one_fact on push (tag_id, occurred_at, digest, action) nulls not distinct where tag_id is not null;
create unique index push_of_repository_is_one_fact on push (repository_id, occurred_at, digest) nulls not distinct where repository_id is not null;
-- The neighbours of a late fact.
create index push_in_order on push (tag_id, effective_at) where tag_id is not null;
create index push_of_repository_in_order on push (repository_id, effective_at) where repository_id is not null;
-- Reports by time of recording; facts arrive in that order, so a block-range index of a few pages is enough.
create index push_recorded on push using brin (recorded_at) with (pages_per_range = 32);

create table revision (
    tag_id bigint not null,
    -- 1, 2, 3 … per tag, in the order recorded.
    number bigint not null check (number > 0),
    kind revision_kind not null,
    digest bytea check (octet_length(digest) in (32, 64)),
    effective_at timestamptz not null,
    recorded_at timestamptz not null,
    -- The revision in force just before this one in time, when it was recorded.
    previous bigint,
    -- The tag's head when this one was recorded: its own number, unless it was late.
    head bigint not null,
    late boolean not null generated always as (head <> number) stored,
    -- The fact that gave the tag this state.
    push_id bigint not null,
    -- Gap-free per partition, in the order recorded: what lies above position.published is still to be published.
    partition smallint not null,
    ordinal bigint not null,
    primary key (tag_id, number),
    check ((kind = 'deleted') = (digest is null)),
    check ((kind = 'created') = (previous is null))
);

create unique index revision_in_order_of_publishing on revision (partition, ordinal);
-- As-of: one descent to the greatest (effective_at, number) not after the time asked for.
create index revision_as_of on revision (tag_id, effective_at, number);
-- Which tags ever had this digest; also whether a tag had it before (reverted).
create index revision_by_digest on revision (digest, tag_id, effective_at, number) where digest is not null;
create index revision_recorded on revision using brin (recorded_at) with (pages_per_range = 32);

create function refuse_rewriting() returns trigger language plpgsql as $$
begin
    raise exception 'history is append-only: % on % is refused', tg_op, tg_table_name
        using errcode = 'restrict_violation';
end $$;

-- Even for the owner, and (always) even for a session that plays replica.
create trigger append_only before update or delete on push for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on push for each statement execute function refuse_rewriting();
create trigger append_only before update or delete on revision for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on revision for each statement execute function refuse_rewriting();
alter table push enable always trigger append_only;
alter table push enable always trigger append_only_truncate;
alter table revision enable always trigger append_only;
alter table revision enable always trigger append_only_truncate;

-- How far a stream is read, in the same transaction as what was read from it.
create table position (
    stream text not null,
    partition smallint not null,
    -- Which incarnation of the stream, and the last message applied: if either is not found again, it is read from its start.
    stream_created_ns bigint,
    applied_seq bigint not null default 0,
    applied_time_ns bigint,
    -- Never falls, whatever the clocks of the instances say.
    recorded_at timestamptz,
    -- Ordinal of the last revision acknowledged by REVISIONS.
    published bigint not null default 0,
    primary key (stream, partition)
);
comment on table push is 'Facts: what a registry reported. Append-only.';
comment on table revision is 'Numbered changes of a tag. Append-only.';
comment on table position is 'What of each stream is applied and published.';
