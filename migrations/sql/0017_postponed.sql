-- Questions and manifests that wait for their registry: it is away, refuses, or has more to answer
-- at the moment than it may be asked. In NATS they would count as deliveries without an ack, of
-- which a consumer has a bounded number for all registries together.
create table postponed (
    work text not null check (work in ('question', 'manifest')),
    -- Equal keys ask for the same: the later message replaces the earlier one.
    key text not null,
    registry text not null,
    source text not null,
    body bytea not null,
    traceparent text,
    attempts integer not null,
    due_at timestamptz not null,
    -- The first time that the resolver postponed this key. Rows older than 14 days are removed, as
    -- messages of UNRESOLVED are.
    since timestamptz not null default now(),
    -- Of the message in `body`: an answer to an earlier message must not remove a later one.
    postponed_at timestamptz not null,
    primary key (work, key)
);
comment on table postponed is 'Questions and manifests of the resolver that wait for their registry.';
-- The due rows of each source, without reading those of all others.
create index postponed_due on postponed (work, registry, source, due_at);
