-- Changes of conditions of triggers, which the ledger publishes to ROLLOUTS.

create table condition_change (
    ordinal bigint generated always as identity primary key,
    trigger_id integer not null references trigger,
    condition text not null,
    before text,
    reasons jsonb not null check (jsonb_typeof(reasons) = 'array'),
    previous bigint,
    changed_at timestamptz not null default now(),
    published boolean not null default false
);
create index condition_change_of_trigger on condition_change (trigger_id, ordinal);
create index condition_change_to_publish on condition_change (ordinal) where not published;
create unique index condition_change_once on condition_change (trigger_id, coalesce(previous, 0));
comment on table condition_change is 'Changes of conditions that were told, of about the last 30 days, and the last one of each trigger.';
comment on column condition_change.previous is 'The change of the trigger before: two processes that look at once record one change.';
