-- Gates: conditions that keep the planner from starting a rollout, and the facts that they need.

-- The closed gates of this trigger:
-- [{"gate", "image", "registry", "why", "since", "opens_at"}].
alter table trigger add column waiting jsonb not null default '[]' check (jsonb_typeof(waiting) = 'array');
comment on column trigger.waiting is 'Closed gates of the planner''s last decision: the reasons why no rollout starts.';

-- Some clients delete a tag by pushing an image made up for that purpose. Then they delete the
-- digest of the image.
alter table manifest add column tombstone boolean not null default false;
comment on column manifest.tombstone is 'The image was made up by a client in order to delete a tag. It is never rolled out.';

-- Manifests of new revisions for which their registry answers 404. Rows older than a day are
-- removed.
create table missing_manifest (
    digest bytea not null check (octet_length(digest) in (32, 64)),
    registry text not null,
    repository text not null,
    looked_at timestamptz not null,
    -- No further attempt follows: the registry was asked for the tag instead.
    given_up boolean not null,
    primary key (digest, registry, repository)
);
comment on table missing_manifest is 'Manifests that their registry did not have when the resolver read them.';

create or replace view report.manifest as
    select report.digest(m.digest) as digest, m.registry, m.repository,
           m.registry || '/' || m.repository || '@' || report.digest(m.digest) as pinned,
           m.media_type, m.artifact_type, m.size_bytes,
           array(select concat_ws('/', p ->> 'os', p ->> 'architecture', p ->> 'variant') from jsonb_array_elements(m.platforms) p) as platforms,
           m.created, m.revision as vcs_revision, m.source as vcs_source, m.version, m.labels, m.annotations, m.read_at,
           m.tombstone
    from manifest m;
comment on column report.manifest.tombstone is 'The image was made up by a client in order to delete a tag.';
