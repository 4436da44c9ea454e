-- A store of schema version 7 with rows in every table. shop/web is in partition 4 of 8, shop/worker
-- in partition 3.

insert into repository (registry, name, latest_at) values
    ('registry.example.com', 'shop/web', '2026-03-03T13:00:00Z'),
    ('registry.example.com', 'shop/worker', null);

insert into tag (repository_id, name, issued, head, head_digest, head_at, latest_at) values
    (1, 'latest', 2, 2, decode(repeat('22', 32), 'hex'), '2026-03-03T15:00:00Z', '2026-03-03T15:00:00Z'),
    (2, 'latest', 1, 1, decode(repeat('33', 32), 'hex'), '2026-03-03T14:30:00Z', '2026-03-03T14:30:00Z');

insert into push (tag_id, repository_id, action, digest, occurred_at, effective_at, occurred_at_source,
                  received_at, recorded_at, origin, source, event_id, actor, media_type, size_bytes, stream_seq) values
    (1, null, 'push', decode(repeat('11', 32), 'hex'), '2026-03-03T14:00:00Z', '2026-03-03T14:00:00Z', 'event',
     '2026-03-03T14:00:01Z', '2026-03-03T14:00:02Z', 'event', 'main', 'event-1', 'ci',
     'application/vnd.oci.image.manifest.v1+json', 528, 1),
    (2, null, 'push', decode(repeat('33', 32), 'hex'), '2026-03-03T14:30:00Z', '2026-03-03T14:30:00Z', 'event',
     '2026-03-03T14:30:01Z', '2026-03-03T14:30:02Z', 'event', 'main', 'event-2', null, null, null, 2),
    (1, null, 'push', decode(repeat('22', 32), 'hex'), '2026-03-03T15:00:00Z', '2026-03-03T15:00:00Z', 'received',
     '2026-03-03T15:00:01Z', '2026-03-03T15:00:02Z', 'reconciled', 'main', 'event-3', null, null, null, 3),
    (null, 1, 'delete', decode(repeat('44', 32), 'hex'), '2026-03-03T13:00:00Z', '2026-03-03T13:00:00Z', 'event',
     '2026-03-03T15:30:01Z', '2026-03-03T15:30:02Z', 'event', 'main', 'event-4', null, null, null, 4);

insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal) values
    (1, 1, 'created', decode(repeat('11', 32), 'hex'), '2026-03-03T14:00:00Z', '2026-03-03T14:00:02Z', null, 1, 1, 4, 1),
    (2, 1, 'created', decode(repeat('33', 32), 'hex'), '2026-03-03T14:30:00Z', '2026-03-03T14:30:02Z', null, 1, 2, 3, 1),
    (1, 2, 'moved', decode(repeat('22', 32), 'hex'), '2026-03-03T15:00:00Z', '2026-03-03T15:00:02Z', 1, 2, 3, 4, 2);

-- Positions in streams that no longer exist: the services must notice it and read from the start.
insert into position (stream, partition, stream_created_ns, applied_seq, applied_time_ns, recorded_at, published) values
    ('PUSHES', 4, 1772546400000000000, 4, 1772551801000000000, '2026-03-03T15:30:02Z', 2),
    ('PUSHES', 3, 1772546400000000000, 2, 1772548201000000000, '2026-03-03T14:30:02Z', 1),
    ('MANIFESTS', 0, 1772546400000000000, 1, 1772550005000000000, null, 0),
    ('PUSHES, swept', 0, 1772546400000000000, 3, 1772550001000000000, '2026-03-03T15:20:00Z', 0),
    ('REVISIONS, known', 0, 1772546400000000001, 5, 1772550002000000000, null, 0),
    ('REVISIONS', 0, 1772546400000000001, 6, 1772550003000000000, null, 0);

insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, created, labels, annotations,
                      revision, source, version, read_at) values
    (decode(repeat('22', 32), 'hex'), 'registry.example.com', 'shop/web', 'application/vnd.oci.image.manifest.v1+json', 528,
     '[{"os": "linux", "architecture": "amd64", "variant": null, "digest": null}]', '2026-03-03T14:58:00Z',
     '{}', '{}', '0123456789abcdef', 'https://git.example.com/shop/web', '2.0', '2026-03-03T15:00:05Z');

insert into trigger (name, images, target, issued) values
    ('shop', '{"web": "registry.example.com/shop/web:latest", "worker": "registry.example.com/shop/worker:latest"}', 'webhook', 1);

insert into rollout (id, trigger_id, number, state, images, cause, attempts, created_at, started_at, finished_at, traceparent) values
    ('019cb40e-0000-7000-8000-000000000001', 1, 1, 'succeeded',
     jsonb_build_object(
         'web', jsonb_build_object('image', 'registry.example.com/shop/web:latest', 'revision', 2, 'digest', 'sha256:' || repeat('22', 32),
                                   'pinned', 'registry.example.com/shop/web@sha256:' || repeat('22', 32)),
         'worker', jsonb_build_object('image', 'registry.example.com/shop/worker:latest', 'revision', 1, 'digest', 'sha256:' || repeat('33', 32),
                                      'pinned', 'registry.example.com/shop/worker@sha256:' || repeat('33', 32))),
     '{"reason": "revision", "changed": ["web"]}', 1,
     '2026-03-03T15:00:03Z', '2026-03-03T15:00:03Z', '2026-03-03T15:00:04Z',
     '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');

insert into rollout_change (rollout_id, state, rollout, changed_at, published)
select id, state, jsonb_build_object('id', id, 'number', number), finished_at, true from rollout;

insert into walk (registry, repository, first_at, last_at, tags, asked, found) values
    ('registry.example.com', 'shop/web', '2026-03-03T12:00:00Z', '2026-03-03T15:10:00Z', 1, 1, 1);
