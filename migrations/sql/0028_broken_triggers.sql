-- The mistake in the entry of a trigger, which stops no other trigger.

alter table trigger add column problem text;
alter table trigger add column broken boolean not null default false;
comment on column trigger.problem is 'The mistake in the entry of the trigger, with file, line and cure; null: none.';
comment on column trigger.broken is 'The entry or a secret can''t be used, so that nothing is rolled out.';
