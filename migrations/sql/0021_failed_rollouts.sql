-- A failed rollout is attempted again, less often, until it succeeds, a newer one begins, or its
-- target ends the relation.

alter table rollout add column phase_attempts integer not null default 0;
alter table rollout add column phase_ms bigint not null default 0;
alter table rollout add column ended boolean not null default false;
comment on column rollout.phase_attempts is 'Attempts that ended since the fast phase of retries began.';
comment on column rollout.phase_ms is
    'Milliseconds of the fast phase that count towards its end: those of the attempts, and the pauses as planned.';
comment on column rollout.ended is 'Failed for good: no attempt follows unless a person orders one.';
comment on column rollout.finished_at is 'Null while another attempt may follow.';

-- Rollouts of the version before failed for good, and a service of that version may still run.
update rollout set ended = true where state = 'failed';
alter table rollout drop constraint rollout_check;
alter table rollout add constraint rollout_finished check (
    case state
        when 'succeeded' then finished_at is not null
        when 'superseded' then finished_at is not null
        when 'failed' then finished_at is not null or not ended
        else finished_at is null
    end);

drop index rollout_live;
create index rollout_live on rollout (trigger_id, number)
    where state in ('pending', 'running') or state = 'failed' and not ended;

alter table trigger add column retry boolean not null default false;
comment on column trigger.retry is 'A person ordered an attempt now, and the planner has not read the order yet.';
