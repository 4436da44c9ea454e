-- Gates of recorded rollouts: the conditions for the begin of an attempt, as the planner evaluated
-- them last.

alter table rollout add column gates jsonb not null default '[]' check (jsonb_typeof(gates) = 'array');
alter table rollout add column opens_at timestamptz;
alter table rollout add column closes_at timestamptz;
comment on column rollout.gates is
    'Closed gates: [{"gate", "why", "since", "opens_at"}]. Attempts begin only when there is none.';
comment on column rollout.opens_at is 'Time at which all closed gates will be open; null: unknown, or none is closed.';
comment on column rollout.closes_at is 'From this time on no attempt begins, unless the planner has moved it.';
comment on column trigger.waiting is 'Closed gates of the planner''s last decision: the reasons why no rollout is recorded.';
