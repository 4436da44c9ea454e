-- Rollouts that their target took: their result is observed, or reported by the receiver.

alter table rollout add column applied_at timestamptz;
alter table rollout add column observe_at timestamptz;
alter table rollout add column observe_until timestamptz;
alter table rollout add column stage integer not null default 0;
alter table rollout add column passes integer not null default 0;
alter table rollout add column looks integer not null default 0;
alter table rollout add column looked_at timestamptz;
alter table rollout add column seen text check (octet_length(seen) <= 8192);
comment on column rollout.applied_at is 'Time at which the target took the images and their result was to be observed.';
comment on column rollout.observe_at is 'Time of the next look; null: no attempt so far was to be observed.';
comment on column rollout.observe_until is 'End of the time for this stage.';
comment on column rollout.stage is '0: the target is not known to be healthy; 1, 2, …: the step of verify whose turn it is.';
comment on column rollout.passes is 'Passes of this step in a row.';
comment on column rollout.looks is 'Looks since applied_at.';
comment on column rollout.looked_at is 'Time of the last look.';
comment on column rollout.seen is 'Finding of the last look, for people.';
create index rollout_observed on rollout (observe_at) where state in ('watching', 'failed') and observe_at is not null;

create table rollout_look (
    rollout_id uuid primary key references rollout,
    trigger_id integer not null unique references trigger,
    began_at timestamptz not null default now(),
    grace_seconds integer,
    instance integer not null,
    machine text not null,
    pid integer not null,
    pid_started bigint not null
);
comment on table rollout_look is 'Looks at rollouts that are made now, each by one process. A row is removed when its look ends.';
comment on column rollout_look.grace_seconds is
    'The time in which a command of the look ends when it is told to; null: the look runs no command.';
comment on column rollout_look.instance is 'The process that makes the look, by the number of its advisory lock.';

create table rollout_report (
    id bigint generated always as identity primary key,
    rollout_id uuid not null references rollout,
    act_id bigint references act,
    state text not null check (state in ('progressing', 'succeeded', 'failed')),
    text text check (octet_length(text) between 1 and 4096),
    actor text not null,
    reported_at timestamptz not null default clock_timestamp()
);
create index rollout_report_of_rollout on rollout_report (rollout_id, id);
comment on table rollout_report is 'Results that receivers reported. Append-only.';
comment on column rollout_report.act_id is 'Null of a repeated report of progress.';
create trigger append_only before update or delete on rollout_report for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on rollout_report for each statement execute function refuse_rewriting();
alter table rollout_report enable always trigger append_only;
alter table rollout_report enable always trigger append_only_truncate;

alter table trigger add column reports boolean not null default false;
comment on column trigger.reports is 'The receiver reports the result of each rollout.';
