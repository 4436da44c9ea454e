-- The acts of people: which token changed something, when, from where and why.

create table act (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null check (length(actor) between 1 and 200),
    role text,
    address text,
    act text not null check (act ~ '^[a-z_]{1,30}$'),
    trigger text check (length(trigger) between 1 and 63),
    rollout_id uuid references rollout,
    hold_id bigint,
    reason text check (length(reason) between 1 and 500),
    details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
    request_id text not null check (length(request_id) between 1 and 100),
    idempotency_key text check (length(idempotency_key) between 1 and 100)
);
create index act_of_trigger on act (trigger, id);
create index act_of_actor on act (actor, id);
create index act_repeated on act (actor, idempotency_key, at) where idempotency_key is not null;
comment on table act is 'Acts of people on triggers, rollouts and holds. Append-only.';
comment on column act.actor is 'Name of the token; local without tokens.';
comment on column act.role is 'Role of the token; null without tokens.';
comment on column act.address is 'IP address of the client, or of the proxy before the api.';
comment on column act.trigger is 'Name of a trigger, or a pattern over names.';
comment on column act.details is 'The rest of the request, such as the number of a rollout.';
comment on column act.request_id is 'X-Request-Id of the request, or an id that the api made.';
comment on column act.idempotency_key is
    'Idempotency-Key of the request: the same key of the same actor does nothing again for 24 h.';

create trigger append_only before update or delete on act for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on act for each statement execute function refuse_rewriting();
alter table act enable always trigger append_only;
alter table act enable always trigger append_only_truncate;

alter table trigger add column paused_by text;
alter table trigger add column paused_at timestamptz;
alter table trigger add column paused_reason text;
comment on column trigger.paused_by is 'The actor who paused the trigger; null if it is not paused, or was paused before 0026.';
