-- What is deployed where: triggers as last configured, their rollouts, and each change of a rollout's state.

-- resuming: no longer paused, and the planner has yet to look at the present heads; until then nothing starts.
create type trigger_state as enum ('active', 'paused', 'resuming');
create type rollout_state as enum ('pending', 'running', 'succeeded', 'failed', 'superseded');

create table trigger (
    id integer generated always as identity primary key,
    name text not null unique,
    -- {"web": "registry.example.com/shop/web:latest"}: the images watched, as configured.
    images jsonb not null,
    -- Kind of target: webhook, command.
    target text not null,
    -- False once it is gone from the configuration; its rollouts stay.
    configured boolean not null default true,
    -- While paused nothing starts.
    state trigger_state not null default 'active',
    -- Greatest rollout number issued.
    issued bigint not null default 0
);

create table rollout (
    id uuid primary key,
    trigger_id integer not null references trigger,
    -- 1, 2, 3 … per trigger.
    number bigint not null check (number > 0),
    state rollout_state not null default 'pending',
    -- {"web": {"image", "revision", "digest", "pinned"}}: one consistent set, never changed.
    images jsonb not null,
    cause jsonb not null,
    attempts integer not null default 0,
    created_at timestamptz not null default now(),
    -- The first attempt; retries end 24 h after it.
    started_at timestamptz,
    finished_at timestamptz,
    next_attempt_at timestamptz not null default now(),
    error text,
    unique (trigger_id, number),
    check ((finished_at is not null) = (state in ('succeeded', 'failed', 'superseded')))
);

-- What workers look for.
create index rollout_live on rollout (trigger_id, number) where state in ('pending', 'running');

-- The ledger: one row per change of state, published to ROLLOUTS in order. Rows are only ever marked as published.
create table rollout_change (
    ordinal bigint generated always as identity primary key,
    rollout_id uuid not null references rollout,
    state rollout_state not null,
    -- The rollout as it was then: the body of the event.
    rollout jsonb not null,
    changed_at timestamptz not null default now(),
    published boolean not null default false
);
create index rollout_change_to_publish on rollout_change (ordinal) where not published;
create index rollout_change_of_rollout on rollout_change (rollout_id, ordinal);
comment on table rollout is 'Numbered attempts to bring a trigger''s target to one set of pinned images.';
comment on table rollout_change is 'Every change of state of every rollout.';
