-- The tags that had a second revision, so that a page about them costs nothing for the many tags
-- that were written once. An index on tag would do the same, and end updates of heads in place.

create table moving (
    repository_id bigint not null,
    tag_id bigint not null,
    primary key (repository_id, tag_id)
);
comment on table moving is 'The tags with two revisions or more. A row is added with the second revision of a tag, and stays.';

insert into moving (repository_id, tag_id) select repository_id, id from tag where issued > 1;
