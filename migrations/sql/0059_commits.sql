-- Commits by their first digits, and as a whole. On a store with pushes, `tagtrail migrate` has
-- built the new index and dropped the old one already, by indexes.rs, while services write.

do $$
begin
    if to_regclass('manifest_by_commit') is null then
        create index manifest_by_commit on manifest (revision text_pattern_ops) where revision is not null;
    end if;
    if to_regclass('manifest_by_revision') is not null then
        drop index manifest_by_revision;
    end if;
end $$;
