-- Numbers of changes by repository and day, so that a page or a report adds up a few rows instead
-- of reading history. The indexer counts in the background. Both tables are derived from revision:
-- emptied together, they are filled again from the beginning.

create table day_stats (
    repository_id bigint not null,
    day date not null,
    changes bigint not null,
    tags bigint not null,
    reverted bigint not null,
    primary key (repository_id, day)
);
comment on table day_stats is 'Numbers of changes that took effect on a day (UTC), by repository. Tags that hold signatures do not count.';
comment on column day_stats.tags is 'Tags that changed on the day.';
comment on column day_stats.reverted is 'Changes back to a digest that the tag had before.';

create table day_stats_position (
    partition smallint primary key,
    counted bigint not null
);
comment on table day_stats_position is 'Ordinal of the last revision of each partition that day_stats counts.';
