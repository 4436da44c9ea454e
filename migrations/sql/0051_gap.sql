-- The gap of a trigger, for the statements that begin attempts: between the verdict of the planner
-- and the begin of a rollout, the rollout before it may begin.

alter table trigger add column gap interval;
comment on column trigger.gap is 'The least time between the begins of two rollouts; null: none.';
