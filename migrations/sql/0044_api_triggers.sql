-- Triggers of the API: the generation that is in force.

alter table trigger add column loaded bigint;
comment on column trigger.loaded is 'Of a trigger of the API: the generation that the planner has read.';
