-- Which files had the images of a rollout: a change of some of them is seen after a restart, too.

alter table rollout add column places text[];
comment on column rollout.places is 'The places of the target that had the images when an attempt succeeded, of targets with places that come and go, such as files. Null: not known.';
