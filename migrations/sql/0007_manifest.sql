-- What each digest is: its manifest and its config, read once from the registry that it was pushed to.
--
-- A digest can't change what it means, so rows are added and never updated. They are no facts, though: a registry can be asked again,
-- so nothing but the roles guards them.
create table manifest (
    digest bytea primary key check (octet_length(digest) in (32, 64)),
    -- Where it was read; the same digest may be elsewhere too.
    registry text not null,
    repository text not null,
    media_type text not null,
    size_bytes bigint not null check (size_bytes >= 0),
    -- What it is, where it is no image.
    artifact_type text,
    -- [{"os", "architecture", "variant", "digest"}]
    platforms jsonb not null check (jsonb_typeof(platforms) = 'array'),
    -- By its author's clock.
    created timestamptz,
    labels jsonb not null check (jsonb_typeof(labels) = 'object'),
    annotations jsonb not null check (jsonb_typeof(annotations) = 'object'),
    -- org.opencontainers.image.revision, .source and .version: of the annotations, else of the labels.
    revision text,
    source text,
    version text,
    read_at timestamptz not null
);
comment on table manifest is 'What each digest is, as its author''s own bytes say.';

-- Which images were built from this commit.
create index manifest_by_revision on manifest (revision) where revision is not null;

create view report.manifest as
    select report.digest(m.digest) as digest, m.registry, m.repository,
           m.registry || '/' || m.repository || '@' || report.digest(m.digest) as pinned,
           m.media_type, m.artifact_type, m.size_bytes,
           array(select concat_ws('/', p ->> 'os', p ->> 'architecture', p ->> 'variant') from jsonb_array_elements(m.platforms) p) as platforms,
           m.created, m.revision as vcs_revision, m.source as vcs_source, m.version, m.labels, m.annotations, m.read_at
    from manifest m;
comment on view report.manifest is 'What each digest is: for what, built when and from what. Join it with report.history by digest.';
comment on column report.manifest.platforms is 'What it runs on, such as {linux/amd64,linux/arm64/v8}.';
comment on column report.manifest.created is 'When it was built, as its author says.';
comment on column report.manifest.vcs_revision is 'The commit that it was built from (org.opencontainers.image.revision).';
comment on column report.manifest.vcs_source is 'Where that source is (org.opencontainers.image.source).';

-- The rights to it are given beside the others, whatever those are by now: `tagtrail migrate` calls one function.
alter function grant_to_services() rename to grant_all_but_manifest_to_services;

create function grant_to_services() returns void language plpgsql as $$
begin
    perform grant_all_but_manifest_to_services();
    if exists (select from pg_roles where rolname = 'tagtrail_indexer') then
        grant select, insert on manifest to tagtrail_indexer;
    end if;
    if exists (select from pg_roles where rolname = 'tagtrail_trigger') then
        grant select on manifest to tagtrail_trigger;
    end if;
    if exists (select from pg_roles where rolname = 'tagtrail_api') then
        grant select on manifest to tagtrail_api;
    end if;
end $$;
comment on function grant_to_services() is 'Gives each service''s role what it needs and no more. Called by tagtrail migrate.';

select grant_to_services();
