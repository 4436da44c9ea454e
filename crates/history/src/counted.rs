//! Parts of statements about the numbers that the indexer keeps beside history: it counts about a
//! second after it has recorded, and statements that read the numbers add the changes since.

use tagtrail_proto::Tag;

/// Most revisions of a partition that are added to the numbers.
const MOST: u32 = 2000;

/// Returns the columns that a revision `v` of a tag `t` adds to the numbers: its repository and
/// push, the half hour and the minute of its recording, whether the tag is an image, whether it is
/// `new`, and by how many tags with a digest there are more (`more`: 1, 0 or -1).
#[must_use]
pub fn columns() -> String {
    format!(
        "t.repository_id, v.push_id, floor(extract(epoch from v.recorded_at) / 60)::integer as minute,
         floor(extract(epoch from v.recorded_at) / 1800)::integer as half_hour,
         not (t.name like 'sha___-%' and t.name ~ '{}') as image, v.number = 1 as new,
         -- A late revision leaves the head as it is. Heads of before are in the revision before.
         case when v.head = v.number then (v.digest is not null)::integer - coalesce((
             select (h.digest is not null)::integer
             from revision b join revision h on h.tag_id = b.tag_id and h.number = b.head
             where b.tag_id = v.tag_id and b.number = v.number - 1), 0) else 0 end as more",
        Tag::SIGNATURE
    )
}

/// Returns the common table `fresh`, with [`columns`]: revisions that are not counted yet.
pub(crate) fn fresh() -> String {
    format!(
        "fresh as materialized (
             select {}
             from position p left join stats_position c on c.partition = p.partition
             cross join lateral (
                 select r.* from revision r where r.partition = p.partition and r.ordinal > coalesce(c.counted, 0)
                 order by r.ordinal limit {MOST}) v
             -- Each by its key: few are expected, and there may be very many tags.
             cross join lateral (select g.repository_id, g.name from tag g where g.id = v.tag_id offset 0) t
             where p.stream = 'PUSHES'
         )",
        columns()
    )
}
