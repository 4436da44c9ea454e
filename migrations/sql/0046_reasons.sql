-- 0046
-- Why a trigger does not roll out: the planner's view of its images.

alter table trigger add column wanted jsonb check (jsonb_typeof(wanted) = 'object');
alter table trigger add column reasons jsonb not null default '[]' check (jsonb_typeof(reasons) = 'array');
comment on column trigger.wanted is
    'The set that the trigger wants, as in rollout.images. Null: the one of the last rollout. Empty: none, for one of the reasons.';
comment on column trigger.reasons is
    'Reasons of the planner''s last decision about single images: [{"code", "image", "why", "since", "opens_at", "cure"}].';
