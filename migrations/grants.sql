-- The rights of the service roles: one row for each role, table, privilege and list of columns.
--
-- Repeatable, unlike the files of sql/: `tagtrail migrate` and `tagtrail up` run this file after
-- the migrations, each time. Roles belong to the server, so they may be made, or lost in a restore,
-- long after the schema was. Change a row here and the next `tagtrail migrate` applies the change.
--
-- No role has a login: deploy/postgres/accounts.sql gives each role to the account of its service.
-- The owner alone migrates, and nobody but the owner can change or drop a table.

do $$
declare
    services constant text[] := array['tagtrail_indexer', 'tagtrail_resolver', 'tagtrail_trigger', 'tagtrail_api'];
    wanted text;
    held record;
    item record;
begin
    -- Two sessions that change the rights to one table at once fail with "tuple concurrently
    -- updated". The key is listed in crates/postgres/src/lock.rs.
    perform pg_advisory_xact_lock(1952540466, 4);

    -- A role that is missing, and that the owner may not make, is left out.
    foreach wanted in array services || array['tagtrail_report'] loop
        begin
            if not exists (select from pg_roles where rolname = wanted) then
                execute format('create role %I nologin', wanted);
            end if;
        exception
            when insufficient_privilege then
                raise warning 'role % is missing, and % may not make it: see deploy/postgres/accounts.sql', wanted, current_user;
            when duplicate_object or unique_violation then
                null; -- The migration of another database on this server made the role first.
        end;
    end loop;

    -- Only the list below counts, so rights that an earlier list gave end here. tagtrail_report is
    -- for people, who may have been granted more by hand: it keeps every right. An owner without
    -- superuser can revoke only on objects of its own, and needs no more.
    for held in
        select c.oid::regclass as object, case c.relkind when 'S' then 'sequence' else 'table' end as kind, r.rolname as role
        from pg_class c
        join pg_roles r on r.rolname = any (services)
        where c.relnamespace in (select m.relnamespace from pg_class m where m.oid = '_sqlx_migrations'::regclass)
          and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and pg_has_role(c.relowner, 'usage')
          and (exists (select from aclexplode(c.relacl) a where a.grantee = r.oid)
               or exists (select from pg_attribute t cross join aclexplode(t.attacl) a
                          where t.attrelid = c.oid and a.grantee = r.oid))
    loop
        execute format('revoke all on %s %s from %I', held.kind, held.object, held.role);
    end loop;

    for item in
        select g.*, c.oid::regclass as object, c.relnamespace::regnamespace as schema
        from (values
            -- History is added to, never changed; heads and positions move.
            ('tagtrail_indexer', '_sqlx_migrations', 'select', null),
            ('tagtrail_indexer', 'service', 'select', null),
            ('tagtrail_indexer', 'service', 'insert', null),
            ('tagtrail_indexer', 'service', 'update', 'seen_at, ready, why'),
            ('tagtrail_indexer', 'service', 'delete', null),
            ('tagtrail_indexer', 'repository', 'select', null),
            ('tagtrail_indexer', 'repository', 'insert', null),
            ('tagtrail_indexer', 'repository', 'update', 'latest_at'),
            ('tagtrail_indexer', 'tag', 'select', null),
            ('tagtrail_indexer', 'tag', 'insert', null),
            ('tagtrail_indexer', 'tag', 'update', 'issued, head, head_digest, head_at, latest_at'),
            ('tagtrail_indexer', 'push', 'select', null),
            ('tagtrail_indexer', 'push', 'insert', null),
            ('tagtrail_indexer', 'revision', 'select', null),
            ('tagtrail_indexer', 'revision', 'insert', null),
            ('tagtrail_indexer', 'manifest', 'select', null),
            ('tagtrail_indexer', 'manifest', 'insert', null),
            ('tagtrail_indexer', 'position', 'select', null),
            ('tagtrail_indexer', 'position', 'insert', null),
            ('tagtrail_indexer', 'position', 'update', 'stream_created_ns, applied_seq, applied_time_ns, recorded_at, published, known_created_ns, known_seq, known_fence_seq, known_fence_id, source'),
            ('tagtrail_indexer', 'sweep', 'select', null),
            ('tagtrail_indexer', 'sweep', 'insert', null),
            ('tagtrail_indexer', 'sweep', 'update', 'stream_created_ns, applied_seq, applied_time_ns, done_at, doubts_until'),
            ('tagtrail_indexer', 'moving', 'select', null),
            ('tagtrail_indexer', 'moving', 'insert', null),
            ('tagtrail_indexer', 'day_stats', 'select', null),
            ('tagtrail_indexer', 'day_stats', 'insert', null),
            ('tagtrail_indexer', 'day_stats', 'update', 'changes, tags, reverted'),
            ('tagtrail_indexer', 'day_stats_position', 'select', null),
            ('tagtrail_indexer', 'day_stats_position', 'insert', null),
            ('tagtrail_indexer', 'day_stats_position', 'update', 'counted'),
            ('tagtrail_indexer', 'tag_stats', 'select', null),
            ('tagtrail_indexer', 'tag_stats', 'insert', null),
            ('tagtrail_indexer', 'tag_stats', 'update', 'known, tags, signatures'),
            ('tagtrail_indexer', 'half_hour_stats', 'select', null),
            ('tagtrail_indexer', 'half_hour_stats', 'insert', null),
            ('tagtrail_indexer', 'half_hour_stats', 'update', 'changes, push_id'),
            ('tagtrail_indexer', 'half_hour_stats', 'delete', null),
            ('tagtrail_indexer', 'minute_stats', 'select', null),
            ('tagtrail_indexer', 'minute_stats', 'insert', null),
            ('tagtrail_indexer', 'minute_stats', 'update', 'changes'),
            ('tagtrail_indexer', 'minute_stats', 'delete', null),
            ('tagtrail_indexer', 'stats_position', 'select', null),
            ('tagtrail_indexer', 'stats_position', 'insert', null),
            ('tagtrail_indexer', 'stats_position', 'update', 'counted'),
            ('tagtrail_indexer', 'coverage', 'select', null),
            ('tagtrail_indexer', 'coverage', 'insert', null),
            ('tagtrail_indexer', 'coverage', 'update', 'event, resolved, observed, reconciled, reordered, imported, signatures, last_event_at'),
            ('tagtrail_indexer', 'coverage_change', 'select', null),
            ('tagtrail_indexer', 'coverage_change', 'insert', null),
            ('tagtrail_indexer', 'coverage_change', 'update', 'counted_as'),
            ('tagtrail_indexer', 'coverage_change', 'delete', null),
            ('tagtrail_indexer', 'coverage_position', 'select', null),
            ('tagtrail_indexer', 'coverage_position', 'insert', null),
            ('tagtrail_indexer', 'coverage_position', 'update', 'counted'),

            -- Reads history, and records how far each registry is reconciled.
            ('tagtrail_resolver', '_sqlx_migrations', 'select', null),
            ('tagtrail_resolver', 'service', 'select', null),
            ('tagtrail_resolver', 'service', 'insert', null),
            ('tagtrail_resolver', 'service', 'update', 'seen_at, ready, why'),
            ('tagtrail_resolver', 'service', 'delete', null),
            ('tagtrail_resolver', 'repository', 'select', null),
            ('tagtrail_resolver', 'tag', 'select', null),
            ('tagtrail_resolver', 'push', 'select', null),
            ('tagtrail_resolver', 'revision', 'select', null),
            ('tagtrail_resolver', 'position', 'select', null),
            ('tagtrail_resolver', 'policy', 'select', null),
            ('tagtrail_resolver', 'candidate', 'select', null),
            ('tagtrail_resolver', 'selection', 'select', null),
            ('tagtrail_resolver', 'reconcile', 'select', null),
            ('tagtrail_resolver', 'reconcile', 'insert', null),
            ('tagtrail_resolver', 'reconcile', 'update', 'last_at, tags, asked, found'),
            ('tagtrail_resolver', 'missing_manifest', 'select', null),
            ('tagtrail_resolver', 'missing_manifest', 'insert', null),
            ('tagtrail_resolver', 'missing_manifest', 'update', 'looked_at, given_up'),
            ('tagtrail_resolver', 'missing_manifest', 'delete', null),
            ('tagtrail_resolver', 'postponed', 'select', null),
            ('tagtrail_resolver', 'postponed', 'insert', null),
            ('tagtrail_resolver', 'postponed', 'update', 'source, body, traceparent, attempts, due_at, postponed_at'),
            ('tagtrail_resolver', 'postponed', 'delete', null),
            ('tagtrail_resolver', 'reconcile_failure', 'insert', null),
            ('tagtrail_resolver', 'reconcile_failure', 'select', null),
            ('tagtrail_resolver', 'reconcile_failure', 'update', 'failed_at, reason'),
            -- The old name of reconcile, for resolvers of the version before.
            ('tagtrail_resolver', 'walk', 'select', null),
            ('tagtrail_resolver', 'walk', 'insert', null),
            ('tagtrail_resolver', 'walk', 'update', 'last_at, tags, asked, found'),

            -- Plans on heads, and keeps rollouts. A rollout's images and cause never change.
            ('tagtrail_trigger', '_sqlx_migrations', 'select', null),
            ('tagtrail_trigger', 'service', 'select', null),
            ('tagtrail_trigger', 'service', 'insert', null),
            ('tagtrail_trigger', 'service', 'update', 'seen_at, ready, why'),
            ('tagtrail_trigger', 'service', 'delete', null),
            ('tagtrail_trigger', 'repository', 'select', null),
            ('tagtrail_trigger', 'tag', 'select', null),
            ('tagtrail_trigger', 'push', 'select', null),
            ('tagtrail_trigger', 'revision', 'select', null),
            ('tagtrail_trigger', 'manifest', 'select', null),
            ('tagtrail_trigger', 'missing_manifest', 'select', null),
            ('tagtrail_trigger', 'planner_position', 'select', null),
            ('tagtrail_trigger', 'planner_position', 'insert', null),
            ('tagtrail_trigger', 'planner_position', 'update', 'stream_created_ns, applied_seq, applied_time_ns'),
            ('tagtrail_trigger', 'trigger', 'select', null),
            ('tagtrail_trigger', 'trigger', 'insert', null),
            ('tagtrail_trigger', 'policy', 'select', null),
            ('tagtrail_trigger', 'policy', 'insert', null),
            ('tagtrail_trigger', 'policy', 'update', 'registry, floor, room, filled_at'),
            ('tagtrail_trigger', 'policy', 'delete', null),
            ('tagtrail_trigger', 'candidate', 'select', null),
            ('tagtrail_trigger', 'candidate', 'insert', null),
            ('tagtrail_trigger', 'candidate', 'update', 'key, digest, fit'),
            ('tagtrail_trigger', 'candidate', 'delete', null),
            ('tagtrail_trigger', 'selection', 'select', null),
            ('tagtrail_trigger', 'selection', 'insert', null),
            ('tagtrail_trigger', 'selection', 'update', 'registry, repository, tag_id, tag, key, digest, revision, policy_id, rule, selected_at'),
            ('tagtrail_trigger', 'trigger', 'update', 'policies, images, target, configured, problem, broken, gate_settings, group_name, gap, generation, spec_hash, door, stale, labels, loaded, state, issued, waiting, wanted, reasons, retry, touched, paused_by, paused_at, paused_reason'),
            ('tagtrail_trigger', 'trigger_spec', 'select', null),
            ('tagtrail_trigger', 'trigger_spec', 'insert', null),
            ('tagtrail_trigger', 'discovered', 'select', null),
            ('tagtrail_trigger', 'discovered', 'insert', null),
            ('tagtrail_trigger', 'discovered', 'update', 'uid, seen, by_system, trigger, wish, problem, refused, warnings, annotations, gone_at, held, changed_at'),
            ('tagtrail_trigger', 'discovered', 'delete', null),
            ('tagtrail_trigger', 'trigger_process', 'select', null),
            ('tagtrail_trigger', 'trigger_process', 'insert', null),
            ('tagtrail_trigger', 'trigger_process', 'update', 'seen_at, others'),
            ('tagtrail_trigger', 'trigger_process', 'delete', null),
            ('tagtrail_trigger', 'rollout', 'select', null),
            ('tagtrail_trigger', 'rollout', 'insert', null),
            ('tagtrail_trigger', 'rollout', 'update', 'state, attempts, started_at, finished_at, next_attempt_at, error, phase_attempts, phase_ms, ended, gates, opens_at, closes_at, identity'),
            ('tagtrail_trigger', 'trigger', 'update', 'reports, finish'),
            ('tagtrail_trigger', 'trigger_name', 'select', null),
            ('tagtrail_trigger', 'trigger_name', 'insert', null),
            ('tagtrail_trigger', 'trigger_name', 'update', 'trigger_id, ended_at'),
            ('tagtrail_trigger', 'trigger_name', 'delete', null),
            ('tagtrail_trigger', 'trigger', 'update', 'name, likeness, epoch'),
            ('tagtrail_trigger', 'rollout', 'update', 'applied_at, observe_at, observe_until, stage, passes, looks, looked_at, seen'),
            ('tagtrail_trigger', 'rollout', 'update', 'cut_off, places'),
            ('tagtrail_trigger', 'rollout_attempt', 'select', null),
            ('tagtrail_trigger', 'rollout_attempt', 'insert', null),
            ('tagtrail_trigger', 'rollout_attempt', 'update', 'finished_at, outcome, status, error, next_at, said'),
            ('tagtrail_trigger', 'rollout_look', 'select', null),
            ('tagtrail_trigger', 'rollout_look', 'insert', null),
            ('tagtrail_trigger', 'rollout_look', 'delete', null),
            ('tagtrail_trigger', 'rollout_report', 'select', null),
            ('tagtrail_trigger', 'hold', 'select', null),
            ('tagtrail_trigger', 'hold', 'insert', null),
            ('tagtrail_trigger', 'approval', 'select', null),
            ('tagtrail_trigger', 'hold', 'update', 'triggers'),
            ('tagtrail_trigger', 'condition_change', 'select', null),
            ('tagtrail_trigger', 'condition_change', 'insert', null),
            ('tagtrail_trigger', 'condition_change', 'update', 'published'),
            ('tagtrail_trigger', 'condition_change', 'delete', null),
            ('tagtrail_trigger', 'hold_change', 'select', null),
            ('tagtrail_trigger', 'hold_change', 'insert', null),
            ('tagtrail_trigger', 'hold_change', 'update', 'published'),
            ('tagtrail_trigger', 'rollout_order', 'select', null),
            ('tagtrail_trigger', 'rollout_order', 'insert', null),
            ('tagtrail_trigger', 'rollout_order', 'update', 'done_at, answer, recorded'),
            ('tagtrail_trigger', 'rollout_change', 'select', null),
            ('tagtrail_trigger', 'rollout_change', 'insert', null),
            ('tagtrail_trigger', 'rollout_change', 'update', 'published'),
            ('tagtrail_trigger', 'notify_position', 'select', null),
            ('tagtrail_trigger', 'notify_position', 'insert', null),
            ('tagtrail_trigger', 'notify_position', 'update', 'stream_created_ns, applied_seq, applied_time_ns'),
            ('tagtrail_trigger', 'notify_failure', 'select', null),
            ('tagtrail_trigger', 'notify_failure', 'insert', null),
            ('tagtrail_trigger', 'notify_failure', 'update', 'told_at'),
            ('tagtrail_trigger', 'notify_failure', 'delete', null),

            -- Reads, and records the orders of people with the act of each.
            ('tagtrail_api', '_sqlx_migrations', 'select', null),
            ('tagtrail_api', 'service', 'select', null),
            ('tagtrail_api', 'service', 'insert', null),
            ('tagtrail_api', 'service', 'update', 'seen_at, ready, why'),
            ('tagtrail_api', 'service', 'delete', null),
            ('tagtrail_api', 'repository', 'select', null),
            ('tagtrail_api', 'tag', 'select', null),
            ('tagtrail_api', 'push', 'select', null),
            ('tagtrail_api', 'revision', 'select', null),
            ('tagtrail_api', 'manifest', 'select', null),
            ('tagtrail_api', 'position', 'select', null),
            ('tagtrail_api', 'reconcile', 'select', null),
            ('tagtrail_api', 'reconcile_failure', 'select', null),
            ('tagtrail_api', 'moving', 'select', null),
            ('tagtrail_api', 'day_stats', 'select', null),
            ('tagtrail_api', 'day_stats_position', 'select', null),
            ('tagtrail_api', 'tag_stats', 'select', null),
            ('tagtrail_api', 'half_hour_stats', 'select', null),
            ('tagtrail_api', 'minute_stats', 'select', null),
            ('tagtrail_api', 'stats_position', 'select', null),
            ('tagtrail_api', 'coverage', 'select', null),
            ('tagtrail_api', 'coverage_change', 'select', null),
            ('tagtrail_api', 'coverage_position', 'select', null),
            -- The old name of reconcile, for APIs of the version before.
            ('tagtrail_api', 'walk', 'select', null),
            ('tagtrail_api', 'trigger', 'select', null),
            ('tagtrail_api', 'trigger_name', 'select', null),
            ('tagtrail_api', 'trigger', 'update', 'state, retry, paused_by, paused_at, paused_reason, touched'),
            ('tagtrail_api', 'trigger_spec', 'select', null),
            ('tagtrail_api', 'trigger_spec', 'insert', null),
            ('tagtrail_api', 'trigger', 'insert', 'name, images, target, configured, door'),
            ('tagtrail_api', 'trigger', 'update', 'generation, spec_hash, door'),
            ('tagtrail_api', 'trigger_process', 'select', null),
            ('tagtrail_api', 'act', 'select', null),
            ('tagtrail_api', 'act', 'insert', null),
            ('tagtrail_api', 'refused_act', 'select', null),
            ('tagtrail_api', 'refused_act', 'insert', null),
            ('tagtrail_api', 'refused_act', 'update', 'at, actor, act'),
            ('tagtrail_api', 'hold', 'select', null),
            ('tagtrail_api', 'hold', 'insert', null),
            ('tagtrail_api', 'hold', 'update', 'released_at, released_by'),
            ('tagtrail_api', 'approval', 'select', null),
            ('tagtrail_api', 'approval', 'insert', null),
            ('tagtrail_api', 'condition_change', 'select', null),
            ('tagtrail_api', 'hold_change', 'select', null),
            ('tagtrail_api', 'hold_change', 'insert', null),
            ('tagtrail_api', 'rollout_order', 'select', null),
            ('tagtrail_api', 'rollout_order', 'insert', null),
            ('tagtrail_api', 'selection', 'select', null),
            ('tagtrail_api', 'rollout', 'select', null),
            -- Rows are written with the rights of the owner.
            ('tagtrail_api', 'rollout_image', 'select', null),
            ('tagtrail_api', 'rollout_attempt', 'select', null),
            ('tagtrail_api', 'rollout_report', 'select', null),
            ('tagtrail_api', 'rollout_report', 'insert', null),
            ('tagtrail_api', 'rollout_change', 'select', null),
            -- Reports are made of the views that people read.
            ('tagtrail_api', 'report.*', 'select', null),

            -- People and BI tools: every view of the schema report, and no table.
            ('tagtrail_report', 'report.*', 'select', null)
        ) as g (role, name, privilege, columns)
        join pg_roles r on r.rolname = g.role
        left join pg_class c on c.oid = case when g.name = 'report.*' then null else to_regclass(g.name) end
    loop
        if item.name = 'report.*' then
            execute format('grant usage on schema report to %I', item.role);
            execute format('grant %s on all tables in schema report to %I', item.privilege, item.role);
        elsif item.object is null then
            raise exception 'migrations/grants.sql names the table %, which does not exist', item.name;
        else
            execute format('grant usage on schema %s to %I', item.schema, item.role);
            execute format('grant %s%s on %s to %I', item.privilege, ' (' || item.columns || ')', item.object, item.role);
        end if;
    end loop;
end $$;
