-- Triggers over their life: the place that a target acts on, the first sight of a trigger, its old
-- names, and the epoch of its numbers.

alter table trigger add column first_configured_at timestamptz not null default now();
alter table trigger add column epoch timestamptz not null default now();
alter table trigger add column likeness bytea check (octet_length(likeness) = 32);
comment on column trigger.first_configured_at is 'Time at which the trigger was first configured.';
comment on column trigger.epoch is
    'Time at which this store first recorded the trigger. After a loss of the store numbers may begin again, with a later epoch.';
comment on column trigger.likeness is
    'SHA-256 of the entry as written, without name and labels: an equal trigger of another name may be this one, renamed.';

-- The triggers of earlier versions are as old as their first rollout.
update trigger t set first_configured_at = o.created_at, epoch = o.created_at
from (select trigger_id, min(created_at) as created_at from rollout group by trigger_id) o
where o.trigger_id = t.id and o.created_at < t.epoch;

alter table rollout add column identity text;
alter table rollout add column epoch timestamptz;
alter table rollout add column cut_off boolean not null default false;
comment on column rollout.identity is
    'The place that the target of the last attempt acted on, or of the trigger at the recording. Null: not known; no secret.';
comment on column rollout.epoch is 'The epoch of the trigger at the recording. Null: recorded before 0040.';
comment on column rollout.cut_off is 'Cancelled because the trigger was removed: its images are wanted again if the trigger returns.';

create table trigger_name (
    name text primary key check (length(name) between 1 and 63),
    trigger_id integer not null references trigger,
    ended_at timestamptz not null default now()
);
create index trigger_name_of_trigger on trigger_name (trigger_id);
comment on table trigger_name is 'Old names of renamed triggers.';

alter table rollout_order add column above bigint check (above >= 0);
alter table rollout_order drop constraint rollout_order_kind_check;
alter table rollout_order add constraint rollout_order_kind_check
    check (kind in ('rollout', 'release', 'cancel', 'renumber') and (kind = 'renumber') = (above is not null));
comment on column rollout_order.above is 'The number above which the numbers of the next rollouts are to be.';
