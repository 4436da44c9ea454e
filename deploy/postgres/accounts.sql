-- Accounts of Tagtrail's services. Each is a member of the role that has the rights of its service
-- (migrations/grants.sql). Run this file with psql, in the database of Tagtrail, as a superuser; or
-- put it into /docker-entrypoint-initdb.d of the official image. Run it again in each new database,
-- such as one for a restore; this sets the passwords again.
-- Passwords come from the environment: INDEXER_PASSWORD, RESOLVER_PASSWORD, TRIGGER_PASSWORD,
-- API_PASSWORD, REPORT_PASSWORD.
--
-- Only the owner of the database may migrate, and need not be a superuser. The gateway needs no
-- database, and so no account.

\set ON_ERROR_STOP on
\getenv indexer_password INDEXER_PASSWORD
\getenv resolver_password RESOLVER_PASSWORD
\getenv trigger_password TRIGGER_PASSWORD
\getenv api_password API_PASSWORD
\getenv report_password REPORT_PASSWORD
select :{?indexer_password} and :{?resolver_password} and :{?trigger_password} and :{?api_password}
    and :{?report_password} as complete \gset
\if :complete
\else
    do $$ begin
        raise exception 'a password is missing' using hint = 'set INDEXER_PASSWORD, RESOLVER_PASSWORD, '
            'TRIGGER_PASSWORD, API_PASSWORD and REPORT_PASSWORD in the environment of psql';
    end $$;
\endif
select set_config('tagtrail.indexer_password', :'indexer_password', false),
       set_config('tagtrail.resolver_password', :'resolver_password', false),
       set_config('tagtrail.trigger_password', :'trigger_password', false),
       set_config('tagtrail.api_password', :'api_password', false),
       set_config('tagtrail.report_password', :'report_password', false) \g /dev/null

-- `tagtrail up` runs the rest of this file too, from the next line on.
do $$
declare
    owner constant name := (select pg_get_userbyid(datdba) from pg_database where datname = current_database());
    account name;
    item record;
begin
    foreach account in array array['indexer', 'resolver', 'trigger', 'api', 'report'] loop
        -- First the role: an owner without CREATEROLE can't create it in a migration.
        if not exists (select from pg_roles where rolname = 'tagtrail_' || account) then
            execute format('create role %I nologin', 'tagtrail_' || account);
        end if;
        if not exists (select from pg_roles where rolname = account) then
            execute format('create role %I', account);
        end if;
        execute format('alter role %I login inherit password %L', account,
            current_setting('tagtrail.' || account || '_password'));
        execute format('grant %I to %I', 'tagtrail_' || account, account);
    end loop;

    -- Advisory locks decide which instance of a service works on what. By default every account
    -- may take them, make temporary tables, and make large objects, without any bound.
    for item in
        select p.oid::regprocedure as routine, p.proname like '%advisory%' as is_lock
        from pg_proc p
        where p.pronamespace = 'pg_catalog'::regnamespace
          and (p.proname ~ '^pg_(try_)?advisory_' or p.proname in ('lo_creat', 'lo_create', 'lo_from_bytea'))
    loop
        execute format('revoke execute on function %s from public', item.routine);
        if item.is_lock then
            execute format('grant execute on function %s to tagtrail_indexer, tagtrail_resolver, tagtrail_trigger, %I',
                item.routine, owner);
        end if;
        -- The api takes one kind: of an order with an Idempotency-Key, until its transaction ends.
        if item.routine = 'pg_advisory_xact_lock(integer,integer)'::regprocedure then
            execute format('grant execute on function %s to tagtrail_api', item.routine);
        end if;
    end loop;
    execute format('revoke temporary on database %I from public', current_database());

    -- People and BI tools. They may shorten the time-outs, or lengthen them for a single session.
    alter role report connection limit 10;
    alter role report set statement_timeout = '5min';
    alter role report set idle_in_transaction_session_timeout = '1min';
    begin
        alter role report set temp_file_limit = '1GB';
    exception
        when insufficient_privilege then
            raise notice 'only a superuser may limit the temporary files of the account report';
    end;
end $$;
