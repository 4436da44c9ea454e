-- Which processes run, and whether each can do its work: a page and GET /v1/status show it. The
-- gateway has no database, so it has no row.

create table service (
    service text not null check (service in ('indexer', 'resolver', 'trigger', 'api')),
    instance text not null check (length(instance) between 1 and 80),
    machine text not null check (length(machine) <= 255),
    pid integer not null,
    version text not null,
    started_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    ready boolean not null,
    why text check (octet_length(why) <= 2000),
    primary key (service, instance)
);
comment on table service is 'Processes that run: each renews its row every 10 s, and deletes it when it stops.';
comment on column service.instance is 'A name of the process that no other process has.';
comment on column service.seen_at is 'Time of the last renewal.';
comment on column service.why is 'The parts that are not ready, each with the reason; null: all are.';
