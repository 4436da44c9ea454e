-- Settings of gates, and groups of triggers.

alter table trigger add column gate_settings jsonb not null default '{}' check (jsonb_typeof(gate_settings) = 'object');
alter table trigger add column group_name text;
comment on column trigger.gate_settings is 'The settings of the gates as written: {"window", "gap", "group", "approvals"}.';
comment on column trigger.group_name is 'The group of triggers of which one is rolled out at a time; null: none.';

alter table rollout_attempt add column group_name text;
comment on column rollout_attempt.group_name is 'The group of the trigger when the attempt began.';
-- No two attempts of a group run at the same time.
create unique index rollout_attempt_of_group on rollout_attempt (group_name) where finished_at is null and group_name is not null;
