-- Numbers of tags by repository, and of the changes of the last two days: pages that show them read
-- as many rows as there are repositories, and not tags or history. The indexer counts in the
-- background. The tables are derived from tag and revision: emptied together, they are filled again
-- from the beginning.

create table tag_stats (
    repository_id bigint primary key,
    known bigint not null,
    tags bigint not null,
    signatures bigint not null
);
comment on table tag_stats is 'Numbers of tags by repository.';
comment on column tag_stats.known is 'Tags that have a history.';
comment on column tag_stats.tags is 'Tags that have a digest now, without those that hold signatures.';
comment on column tag_stats.signatures is 'Tags that have a digest now, and hold signatures.';

create table half_hour_stats (
    half_hour integer not null,
    repository_id bigint not null,
    changes integer not null,
    push_id bigint not null,
    primary key (half_hour, repository_id)
);
comment on table half_hour_stats is 'Numbers of changes that were recorded in a half hour, by repository, of two days. Tags that hold signatures do not count.';
comment on column half_hour_stats.half_hour is 'Half hours since 1970 (UTC).';
comment on column half_hour_stats.push_id is 'The last push among those behind the changes.';

create table minute_stats (
    minute integer primary key,
    changes integer not null
);
comment on table minute_stats is 'Numbers of changes that were recorded in a minute, of two days. Tags that hold signatures do not count.';
comment on column minute_stats.minute is 'Minutes since 1970 (UTC).';

create table stats_position (
    partition smallint primary key,
    counted bigint not null
);
comment on table stats_position is 'Ordinal of the last revision of each partition that these tables count.';

-- One statement, so one snapshot: services may be recording.
with positions as (
    insert into stats_position (partition, counted)
    select p.partition, e.ordinal
    from position p cross join lateral (select max(r.ordinal) as ordinal from revision r where r.partition = p.partition) e
    where p.stream = 'PUSHES' and e.ordinal is not null
), tags as (
    insert into tag_stats (repository_id, known, tags, signatures)
    select repository_id, count(*), count(*) filter (where head_digest is not null and not signature),
           count(*) filter (where head_digest is not null and signature)
    from (select repository_id, head_digest, name ~ '^sha(256|512)-[0-9a-f]{64}([.].+)?$' as signature from tag where head is not null) t
    group by repository_id
), recent as materialized (
    select t.repository_id, v.push_id, floor(extract(epoch from v.recorded_at) / 60)::integer as minute
    from revision v join tag t on t.id = v.tag_id
    where v.recorded_at >= now() - interval '2 days' and t.name !~ '^sha(256|512)-[0-9a-f]{64}([.].+)?$'
), half_hours as (
    insert into half_hour_stats (half_hour, repository_id, changes, push_id)
    select minute / 30, repository_id, count(*), max(push_id) from recent group by 1, 2
)
insert into minute_stats (minute, changes) select minute, count(*) from recent group by minute;
