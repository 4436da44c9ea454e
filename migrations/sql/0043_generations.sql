-- Generations: each change of the settings of a trigger is recorded with its origin. A process acts
-- only on a trigger whose recorded settings are its own.

alter table trigger add column generation bigint not null default 0;
alter table trigger add column spec_hash bytea check (length(spec_hash) = 32);
alter table trigger add column door text check (door in ('file', 'folder', 'api'));
alter table trigger add column stale boolean not null default false;
alter table trigger add column labels jsonb not null default '{}' check (jsonb_typeof(labels) = 'object');
comment on column trigger.generation is 'Rises by one with each change of the settings; 0: none is recorded.';
comment on column trigger.spec_hash is 'SHA-256 of the recorded settings; null: not configured, or of a version before 0043.';
comment on column trigger.door is 'Where the settings come from.';
comment on column trigger.stale is 'The entry is broken, and an earlier generation is in force.';
comment on column trigger.labels is 'Labels of the trigger, such as the team.';

create table trigger_spec (
    id bigint generated always as identity unique,
    trigger_id int not null references trigger,
    generation bigint not null check (generation > 0),
    door text not null check (door in ('file', 'folder', 'api')),
    file text not null default '',
    spec jsonb check (jsonb_typeof(spec) = 'object'),
    complete boolean not null,
    hash bytea check (length(hash) = 32),
    actor text not null check (length(actor) between 1 and 200),
    changed_at timestamptz not null default now(),
    primary key (trigger_id, generation)
);
create index trigger_spec_of_api on trigger_spec (id) where door = 'api';
comment on table trigger_spec is 'The settings of triggers, one row for each generation. Append-only.';
comment on column trigger_spec.file is 'The file that has the entry; relative paths begin in its folder. Empty for the API.';
comment on column trigger_spec.spec is 'The settings as written, without secrets; null: the trigger was removed.';
comment on column trigger_spec.complete is 'False if texts that may hold secrets were left out, so that the settings can''t be used from here.';
comment on column trigger_spec.hash is 'SHA-256 of the settings with these texts.';
comment on column trigger_spec.actor is 'Name of the token, or configuration for a file.';

create trigger append_only before update or delete on trigger_spec for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on trigger_spec for each statement execute function refuse_rewriting();
alter table trigger_spec enable always trigger append_only;
alter table trigger_spec enable always trigger append_only_truncate;

create table trigger_process (
    instance int primary key,
    machine text not null,
    pid int not null,
    seen_at timestamptz not null default now(),
    others jsonb not null default '{}' check (jsonb_typeof(others) = 'object')
);
comment on table trigger_process is 'The processes of the trigger service that run.';
comment on column trigger_process.seen_at is 'The process writes its row every ten seconds.';
comment on column trigger_process.others is 'The triggers whose recorded settings are not those of this process, so that it begins no attempt of them; each with the generation that the process has, or null for settings that are not recorded.';
