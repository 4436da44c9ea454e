-- Accounts of Tagtrail's services. Each is a member of the role that has the rights of its service
-- (migrations/grants.sql). Run this file with psql as a superuser, or put it into
-- /docker-entrypoint-initdb.d of the official image. Running it again sets the passwords again.
-- Passwords come from the environment: INDEXER_PASSWORD, RESOLVER_PASSWORD, TRIGGER_PASSWORD,
-- API_PASSWORD, REPORT_PASSWORD.
--
-- Only the owner of the database (here: the superuser) may migrate. The gateway needs no database,
-- and so no account.

\set ON_ERROR_STOP on
\getenv indexer_password INDEXER_PASSWORD
\getenv resolver_password RESOLVER_PASSWORD
\getenv trigger_password TRIGGER_PASSWORD
\getenv api_password API_PASSWORD
\getenv report_password REPORT_PASSWORD

-- First the roles, since an owner without CREATEROLE can't create them in a migration; then the
-- accounts.
select format('create role %I nologin', name)
from unnest(array['tagtrail_indexer', 'tagtrail_resolver', 'tagtrail_trigger', 'tagtrail_api', 'tagtrail_report']) as wanted (name)
where not exists (select from pg_roles where rolname = name) \gexec

select format('create role %I login noinherit', name)
from unnest(array['indexer', 'resolver', 'trigger', 'api', 'report']) as wanted (name)
where not exists (select from pg_roles where rolname = name) \gexec

alter role indexer with login inherit password :'indexer_password';
alter role resolver with login inherit password :'resolver_password';
alter role trigger with login inherit password :'trigger_password';
alter role api with login inherit password :'api_password';
alter role report with login inherit password :'report_password';

grant tagtrail_indexer to indexer;
grant tagtrail_resolver to resolver;
grant tagtrail_trigger to trigger;
grant tagtrail_api to api;
grant tagtrail_report to report;
