-- Further states of a rollout. They stand alone: a new value cannot be used in the transaction that
-- adds it.

alter type rollout_state add value 'held' before 'pending';
alter type rollout_state add value 'awaiting_approval' before 'pending';
alter type rollout_state add value 'watching' after 'running';
alter type rollout_state add value 'rejected';
alter type rollout_state add value 'cancelled';
