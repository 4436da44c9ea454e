-- Comments in the words that the code and the documentation use since: push, not fact. Earlier
-- files keep theirs, because sqlx refuses a file that changed after it was applied.
comment on table push is 'Reports of registries: a tag got a digest, or lost it. Append-only.';
comment on table position is 'How far each partition of PUSHES, and MANIFESTS, is applied and published.';
comment on table manifest is 'The manifest and config of each digest, as its author''s own bytes say.';
comment on column rollout.traceparent is
    'Trace of the push that made the rollout necessary, as the header of that name writes it.';

comment on view report.history is 'Every revision: the digest of an image from occurred_at until the next revision.';
comment on column report.history.until is 'Effective time of the next revision; null: this one is in force.';
comment on column report.history.late is 'The push arrived after a newer one: it changed the past, not the head.';
comment on view report.head is 'The present state of every image, deleted images included.';
comment on column report.head.revisions is 'Number of revisions of the image.';
comment on view report.push is 'Every push that was recorded, including pushes that changed nothing.';
comment on column report.push.scope is 'Reach of a delete: one tag, one digest with all its tags, or the whole repository.';
comment on view report.manifest is
    'Platforms, build time and source of each digest. Join it with report.history by digest.';
comment on column report.manifest.platforms is 'Platforms of the image, such as {linux/amd64,linux/arm64/v8}.';
comment on column report.manifest.created is 'Time of the build, by its author''s clock.';
comment on column report.manifest.vcs_revision is 'Commit of the build (org.opencontainers.image.revision).';
comment on column report.manifest.vcs_source is 'Address of the source code (org.opencontainers.image.source).';
