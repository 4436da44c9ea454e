-- The table `walk` takes the word of the settings and of the origin `reconciled`.
alter table walk rename to reconcile;
alter table reconcile rename constraint walk_pkey to reconcile_pkey;

-- Resolvers and APIs of the version before this one read and write `walk` until they are replaced.
-- The first migration after the next release drops the view.
create view walk as select * from reconcile;

comment on table reconcile is 'One row for each repository that the resolver has compared with its registry, and when.';
comment on column reconcile.first_at is
    'End of the first comparison. Tags found by it are recorded as imported; an unreported change found later was lost.';
comment on column reconcile.last_at is 'End of the last comparison.';
comment on column reconcile.tags is 'Tags that the registry listed in the last comparison.';
comment on column reconcile.asked is 'Tags looked up one by one in the last comparison.';
comment on column reconcile.found is 'Changes that no event had reported, in all comparisons.';
comment on view walk is 'The table reconcile under its old name, for services of the version before.';
