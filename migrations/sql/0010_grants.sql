-- The rights of the services stand in migrations/grants.sql from here on: one list in place of a
-- function that each migration copied, renamed or wrapped.
drop function grant_to_services();
drop function grant_all_but_manifest_to_services();
