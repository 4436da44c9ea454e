-- The last act on each trigger that the api refused, because the token may not act on the trigger.
-- One row for each trigger, so that no caller can fill the table.

create table refused_act (
    trigger_id int primary key references trigger,
    at timestamptz not null default now(),
    actor text not null check (length(actor) between 1 and 200),
    act text not null check (act ~ '^[a-z_]{1,30}$')
);
comment on table refused_act is 'The last act on each trigger that was refused, because the token may not act on it.';
comment on column refused_act.actor is 'Name of the token.';
comment on column refused_act.act is 'The operation of the API.';
