-- The pushes of a partition may be in several streams, one after the other: `PUSHES`, or one of
-- `PUSHES_0` …, as the number of streams is changed. The row of a partition keeps its key.

alter table position add column source text check (source ~ '^PUSHES_[0-9]{1,3}$');
comment on column position.source is
    'The stream of pushes that the partition is read from, and that the other columns are about; null: PUSHES itself.';

alter table sweep drop constraint sweep_stream_check;
alter table sweep add constraint sweep_stream_check check (stream ~ '^(PUSHES(_[0-9]{1,3})?|REVISIONS)$');
comment on column sweep.stream is
    'PUSHES, PUSHES_0 …: messages compared with push. REVISIONS: messages known to be in revision.';
