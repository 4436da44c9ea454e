-- Image selection policies: which tag a trigger wants, of repositories with any number of tags.
-- Only the planner writes these tables.

create table policy (
    id integer generated always as identity primary key,
    -- SHA-256 of registry, repository and the canonical rule. A relative rule, such as
    -- semver.within, adds the selected tag.
    fingerprint bytea not null unique check (octet_length(fingerprint) = 32),
    registry text not null,
    repository text not null,
    rule jsonb not null,
    -- Every tag that the rule accepts and whose key is at least this one is in candidate. Empty:
    -- all accepted tags are. Null: the repository is not read yet.
    floor bytea,
    -- Number of candidates that are kept.
    room integer not null default 100 check (room between 1 and 10000),
    filled_at timestamptz
);
comment on table policy is 'Rules over the tags of a repository. Triggers with the same rule share one.';

create table candidate (
    policy_id integer not null references policy on delete cascade,
    tag_id bigint not null,
    -- Orders as the rule does, byte by byte. It ends with the name of the tag, so no two are equal.
    key bytea not null,
    -- The digest that was judged, and whether its manifest fits. Null: not judged yet.
    digest bytea check (octet_length(digest) in (32, 64)),
    fit boolean,
    primary key (policy_id, tag_id),
    check ((digest is null) = (fit is null))
);
create index candidate_in_order on candidate (policy_id, key desc);
comment on table candidate is 'The best tags of each policy.';

create table selection (
    trigger_id integer not null references trigger,
    -- Name of the image in the trigger.
    name text not null,
    registry text not null,
    repository text not null,
    tag_id bigint not null,
    tag text not null,
    key bytea not null,
    digest bytea not null check (octet_length(digest) in (32, 64)),
    revision bigint not null,
    -- The policy, as long as it is in use.
    policy_id integer references policy on delete set null,
    -- SHA-256 of registry, repository and the canonical rule that made the selection.
    rule bytea not null check (octet_length(rule) = 32),
    selected_at timestamptz not null default now(),
    primary key (trigger_id, name)
);
comment on table selection is 'The tag that a policy selected last, for each image of a trigger. Automation never selects a lower one.';

-- {"api": {"repository", "semver", …}}: the settings of the images that have a policy.
alter table trigger add column policies jsonb not null default '{}' check (jsonb_typeof(policies) = 'object');
comment on column trigger.images is
    'By name, each image that is watched: registry/repository:tag, or registry/repository of an image with a policy.';
