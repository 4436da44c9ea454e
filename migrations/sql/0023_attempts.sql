-- Attempts of rollouts, each with its owner and the answer of the target.

alter table rollout drop constraint rollout_finished;
alter table rollout add constraint rollout_finished check (
    case
        when state in ('succeeded', 'superseded', 'rejected', 'cancelled') then finished_at is not null
        when state = 'failed' then finished_at is not null or not ended
        else finished_at is null
    end);

drop index rollout_live;
create index rollout_live on rollout (trigger_id, number)
    where state in ('held', 'awaiting_approval', 'pending', 'running', 'watching') or state = 'failed' and not ended;

create type attempt_outcome as enum ('done', 'applied', 'failed', 'refused', 'gone', 'interrupted', 'cancelled');

create table rollout_attempt (
    rollout_id uuid not null references rollout,
    number integer not null check (number > 0),
    trigger_id integer not null references trigger,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome attempt_outcome,
    status integer,
    error text,
    next_at timestamptz,
    said text not null default '' check (octet_length(said) <= 65536),
    instance integer not null,
    machine text not null,
    pid integer not null,
    pid_started bigint not null,
    primary key (rollout_id, number),
    check ((finished_at is null) = (outcome is null))
);
comment on table rollout_attempt is 'Calls of targets: one row for each attempt at a rollout.';
comment on column rollout_attempt.finished_at is 'Null while the attempt runs.';
comment on column rollout_attempt.status is 'HTTP status or exit code, if the target answered.';
comment on column rollout_attempt.error is 'Cause of the failure, for people.';
comment on column rollout_attempt.next_at is 'Time of the next attempt as planned, if one follows.';
comment on column rollout_attempt.said is 'The end of the target''s answer or output, at most 16 KiB.';
comment on column rollout_attempt.instance is 'The process that makes the attempt, by the number of its advisory lock.';
comment on column rollout_attempt.machine is
    'Where the process runs: the boot and the PID namespace. Only there its process id has a meaning.';
comment on column rollout_attempt.pid_started is 'Start time of the process, in clock ticks since the boot.';

-- No two attempts of a trigger run at the same time.
create unique index rollout_attempt_running on rollout_attempt (trigger_id) where finished_at is null;

create function keep_attempt() returns trigger language plpgsql as $$
begin
    raise exception 'attempts are never deleted, and never changed after their end';
end $$;
create trigger keep_ended before update on rollout_attempt
    for each row when (old.finished_at is not null) execute function keep_attempt();
create trigger keep_all before delete on rollout_attempt for each row execute function keep_attempt();
create trigger keep_all_truncate before truncate on rollout_attempt for each statement execute function keep_attempt();
