-- Faults: the effect of failed rollouts, and of tags that a policy selected and that changed.

alter table hold add column image text;
comment on column hold.image is 'Name of the image behind a fault; null: the fault is about a rollout.';

alter table rollout_order alter column act_id drop not null;
comment on column rollout_order.act_id is 'Null of an order that follows from on_failure of the trigger.';

alter table trigger add column finish boolean not null default false;
comment on column trigger.finish is 'A newer rollout waits until the result of the one before is known.';
