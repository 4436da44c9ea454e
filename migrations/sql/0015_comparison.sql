-- Comparisons that did not reach the end of a repository. The row of a repository stays after a
-- later success; it counts only if it is newer than reconcile.last_at.
create table reconcile_failure (
    registry text not null,
    repository text not null,
    failed_at timestamptz not null default now(),
    reason text not null,
    primary key (registry, repository)
);
comment on table reconcile_failure is 'The last comparison of a repository with its registry that did not reach its end, and why.';
comment on column reconcile_failure.reason is 'The last answer of the registry, or the error in its place.';

-- Images of Windows differ by the version of the system alone.
create or replace view report.manifest as
    select report.digest(m.digest) as digest, m.registry, m.repository,
           m.registry || '/' || m.repository || '@' || report.digest(m.digest) as pinned,
           m.media_type, m.artifact_type, m.size_bytes,
           array(select concat_ws('/', p ->> 'os', p ->> 'architecture', p ->> 'variant') || coalesce(':' || (p ->> 'os_version'), '')
                 from jsonb_array_elements(m.platforms) p) as platforms,
           m.created, m.revision as vcs_revision, m.source as vcs_source, m.version, m.labels, m.annotations, m.read_at,
           m.tombstone
    from manifest m;
comment on column report.manifest.platforms is
    'Platforms of the image, such as {linux/amd64,linux/arm64/v8,windows/amd64:10.0.20348.2113}.';
