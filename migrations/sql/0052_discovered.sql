-- Triggers of annotated objects of clusters.

alter table trigger drop constraint trigger_door_check;
alter table trigger add constraint trigger_door_check check (door in ('file', 'folder', 'api', 'kubernetes'));
alter table trigger_spec drop constraint trigger_spec_door_check;
alter table trigger_spec add constraint trigger_spec_door_check check (door in ('file', 'folder', 'api', 'kubernetes'));
create index trigger_spec_of_doors on trigger_spec (id) where door in ('api', 'kubernetes');
drop index trigger_spec_of_api;
comment on column trigger_spec.file is 'The file that has the entry; relative paths begin in its folder. Of an annotated object the object. Empty for the API.';

create table discovered (
    cluster text not null check (length(cluster) between 1 and 63),
    namespace text not null check (length(namespace) between 1 and 63),
    kind text not null check (length(kind) between 1 and 300),
    name text not null check (length(name) between 1 and 253),
    uid text not null check (length(uid) between 1 and 100),
    seen text not null check (length(seen) between 1 and 100),
    by_system text not null check (length(by_system) between 1 and 20),
    trigger text not null check (length(trigger) between 1 and 63),
    wish jsonb check (jsonb_typeof(wish) = 'object'),
    problem text check (length(problem) between 1 and 4000),
    warnings jsonb not null default '[]' check (jsonb_typeof(warnings) = 'array'),
    annotations jsonb not null default '{}' check (jsonb_typeof(annotations) = 'object'),
    gone_at timestamptz,
    held boolean not null default false,
    changed_at timestamptz not null default clock_timestamp(),
    primary key (cluster, namespace, kind, name)
);
create index discovered_by_trigger on discovered (trigger);
comment on table discovered is 'The annotated objects of clusters, each with the trigger that it asks for.';
comment on column discovered.kind is 'The kind, with its group unless it is built in.';
comment on column discovered.seen is 'Hash of the state of the object and of the settings of its cluster: an object with the same one is not read again.';
comment on column discovered.by_system is 'The system of annotations: tagtrail, openshift or keel.';
comment on column discovered.trigger is 'Name of the trigger; the same one for all objects of a group.';
comment on column discovered.wish is 'The last annotations that could be read, as images and settings; null: there were none yet.';
comment on column discovered.problem is 'The mistake in the annotations.';
comment on column discovered.annotations is 'The annotations of Tagtrail, to be written back after an undo.';
comment on column discovered.gone_at is 'The time since which the object is seen without annotations.';
comment on column discovered.held is 'Whether a hold was seen on the trigger since then: it stays until a person releases it.';
