-- Lists of all rollouts by time, and the rollout whose images ran before another one.

create index rollout_created on rollout (created_at, trigger_id, number);
create index rollout_succeeded on rollout (trigger_id, number) where state = 'succeeded';
