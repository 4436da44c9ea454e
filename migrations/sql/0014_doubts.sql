-- How far the sweeper has looked for doubts about the end of a tag's timeline that no registry was
-- asked about: the bus had refused the question, or a crash had lost it.

alter table sweep add column doubts_until bigint;
comment on column sweep.doubts_until is
    'Row id of the last push that was looked at for a lost question to a registry; kept in the row PUSHES. Null: none yet.';
