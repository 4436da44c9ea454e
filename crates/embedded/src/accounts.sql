-- The owner of the database under `tagtrail up`, who is no superuser. Runs as the superuser that
-- initdb made, in single-user mode: that superuser has no password, so nobody can log in as one.
do $$
declare
    item record;
begin
    -- initdb gives the first superuser the name of the owner, as all releases did.
    if exists (select from pg_roles where oid = 10 and rolname = 'tagtrail') then
        -- A role can't be renamed in a session of its own.
        create role tagtrail_setup superuser;
        set local session authorization tagtrail_setup;
        alter role tagtrail rename to postgres;
        set local session authorization postgres;
        drop role tagtrail_setup;
        alter role postgres password null;
    end if;
    if not exists (select from pg_roles where rolname = 'tagtrail') then
        create role tagtrail;
    end if;
    execute format('alter role tagtrail login nosuperuser password %L', current_setting('tagtrail.owner_password'));
    grant pg_signal_backend to tagtrail;
    alter database tagtrail owner to tagtrail;
    -- A data folder of an older release: the superuser owns everything. The owner of a table owns
    -- its indexes, its row type, and the sequences of its columns.
    for item in
        select format('table %s', c.oid::regclass) as object
        from pg_class c
        where c.relowner = 10 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
          and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))
        union all
        select format('routine %s', p.oid::regprocedure)
        from pg_proc p
        where p.proowner = 10 and p.pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
        union all
        select format('type %s', t.oid::regtype)
        from pg_type t
        where t.typowner = 10 and t.typtype in ('e', 'd', 'r')
          and t.typnamespace::regnamespace::text !~ '^(pg_|information_schema)'
        union all
        select format('schema %I', n.nspname)
        from pg_namespace n
        where n.nspowner = 10 and n.nspname !~ '^(pg_|information_schema)'
    loop
        execute format('alter %s owner to tagtrail', item.object);
    end loop;
end $$;
