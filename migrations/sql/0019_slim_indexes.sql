-- Smaller indexes. On a store with pushes, `tagtrail migrate` has built the new ones and dropped
-- the old ones already, by indexes.rs, while services write: then nothing is left to do here.

do $$
begin
    -- Pushes that do not count from the time that they name: from a clock that is ahead, they count
    -- from their receipt. All others are found by push_is_one_fact, as their two times are equal.
    if to_regclass('push_from_receipt') is null then
        create index push_from_receipt on push (tag_id, effective_at)
            where tag_id is not null and effective_at <> occurred_at;
    end if;
    -- Without the number: a tag that had a digest twice at one time is rare.
    if to_regclass('revision_of_digest') is null then
        create index revision_of_digest on revision (digest, tag_id, effective_at) where digest is not null;
    end if;
    if to_regclass('push_in_order') is not null then
        drop index push_in_order;
    end if;
    if to_regclass('revision_by_digest') is not null then
        drop index revision_by_digest;
    end if;
end $$;

-- Rows come in the order of these keys, so a page is never split again.
alter index push_pkey set (fillfactor = 100);
alter index revision_in_order_of_publishing set (fillfactor = 100);
