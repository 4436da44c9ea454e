-- The trace (W3C Trace Context) of the push that made a rollout necessary: its attempts, on whatever instance and however much
-- later, belong to it. Null: nothing in particular did (a start, a resume, a change of the configuration).
alter table rollout add column traceparent text;
comment on column rollout.traceparent is 'Trace of the push that made it necessary, as the header of that name writes it.';
