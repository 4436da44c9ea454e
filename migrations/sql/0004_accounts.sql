-- Who may do what. Each service has a role of its own, without a login: give them to the accounts that the services use
-- (deploy/postgres/accounts.sql). The owner alone migrates; nobody but the owner can change or drop a table.
--
-- A function, because roles belong to the server and may be made before or after the schema: `tagtrail migrate` calls it each
-- time. A role that is missing, and that the owner may not make, is left out.

create function grant_to_services() returns void language plpgsql as $$
declare
    service text;
begin
    foreach service in array array['tagtrail_indexer', 'tagtrail_trigger', 'tagtrail_api', 'tagtrail_report'] loop
        begin
            if not exists (select from pg_roles where rolname = service) then
                execute format('create role %I nologin', service);
            end if;
        exception
            when insufficient_privilege then
                raise notice 'role % is missing, and % may not make it: see deploy/postgres/accounts.sql', service, current_user;
            when duplicate_object or unique_violation then
                null; -- Somebody else was faster.
        end;
        continue when not exists (select from pg_roles where rolname = service);
        if service = 'tagtrail_report' then
            grant usage on schema report to tagtrail_report;
            grant select on all tables in schema report to tagtrail_report;
            continue;
        end if;
        execute format('grant usage on schema public to %I', service);
        execute format('grant select on _sqlx_migrations, repository, tag, push, revision, position to %I', service);
        if service = 'tagtrail_indexer' then
            -- History is added to, never changed; heads and positions move.
            grant insert on repository, tag, push, revision, position to tagtrail_indexer;
            grant update (latest_at) on repository to tagtrail_indexer;
            grant update (issued, head, head_digest, head_at, latest_at) on tag to tagtrail_indexer;
            grant update (stream_created_ns, applied_seq, applied_time_ns, recorded_at, published) on position to tagtrail_indexer;
        elsif service = 'tagtrail_trigger' then
            grant select, insert on trigger, rollout, rollout_change to tagtrail_trigger;
            grant update (images, target, configured, state, issued) on trigger to tagtrail_trigger;
            grant update (state, attempts, started_at, finished_at, next_attempt_at, error) on rollout to tagtrail_trigger;
            grant update (published) on rollout_change to tagtrail_trigger;
            grant insert on position to tagtrail_trigger;
            grant update (stream_created_ns, applied_seq, applied_time_ns) on position to tagtrail_trigger;
        elsif service = 'tagtrail_api' then
            grant select on trigger, rollout, rollout_change to tagtrail_api;
            -- Pausing and resuming.
            grant update (state) on trigger to tagtrail_api;
        end if;
    end loop;
end $$;
comment on function grant_to_services() is 'Gives each service''s role what it needs and no more. Called by tagtrail migrate.';

select grant_to_services();
