-- What the reconciler has compared with its registry. Not history: it says how far, never what.
create table walk (
    registry text not null,
    repository text not null,
    -- When it was compared for the first time, to the end. Tags that were there already are imported; what comes later unheard was lost.
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    -- Of the last time.
    tags bigint not null,
    asked bigint not null,
    -- Of all times: facts that no event told.
    found bigint not null default 0,
    primary key (registry, repository)
);
comment on table walk is 'What the reconciler has compared with its registry, and when.';

-- As before (0004), with an account for the resolver, which reads what is known and notes what it compared.
create or replace function grant_to_services() returns void language plpgsql as $$
declare
    service text;
begin
    foreach service in array array['tagtrail_indexer', 'tagtrail_resolver', 'tagtrail_trigger', 'tagtrail_api', 'tagtrail_report'] loop
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
        elsif service = 'tagtrail_resolver' then
            grant select, insert on walk to tagtrail_resolver;
            grant update (last_at, tags, asked, found) on walk to tagtrail_resolver;
        elsif service = 'tagtrail_trigger' then
            grant select, insert on trigger, rollout, rollout_change to tagtrail_trigger;
            grant update (images, target, configured, state, issued) on trigger to tagtrail_trigger;
            grant update (state, attempts, started_at, finished_at, next_attempt_at, error) on rollout to tagtrail_trigger;
            grant update (published) on rollout_change to tagtrail_trigger;
            grant insert on position to tagtrail_trigger;
            grant update (stream_created_ns, applied_seq, applied_time_ns) on position to tagtrail_trigger;
        elsif service = 'tagtrail_api' then
            grant select on trigger, rollout, rollout_change, walk to tagtrail_api;
            -- Pausing and resuming.
            grant update (state) on trigger to tagtrail_api;
        end if;
    end loop;
end $$;

select grant_to_services();
