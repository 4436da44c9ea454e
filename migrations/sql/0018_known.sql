-- The place in REVISIONS up to which every message of the partition is in this database, kept with
-- `published`, so that a take-over, a start and the sweeper read nothing twice. Three columns tell
-- whether REVISIONS still is the stream that the place was noted of: its creation, and the fence of
-- the holder that noted the place.
alter table position
    add column known_created_ns bigint,
    add column known_seq bigint,
    add column known_fence_seq bigint,
    add column known_fence_id bigint;
comment on column position.known_seq is
    'Sequence of REVISIONS up to which every message of the partition is in this database; null: unknown.';
comment on column position.known_created_ns is 'Creation time of that REVISIONS, in nanoseconds since 1970.';
comment on column position.known_fence_seq is 'Sequence of the fence of the holder that noted the place.';
comment on column position.known_fence_id is 'Random number in that fence.';
