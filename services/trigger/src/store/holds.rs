//! The condition on holds that each attempt depends on.

/// The SQL condition that no hold in force stands against the rollout `n`, of which the columns
/// `trigger_id`, `images` and `actor` are read. An order of a person passes a soft freeze and a
/// fault with a set that has succeeded before. Names and patterns of triggers consist of a-z, 0-9,
/// - and *.
macro_rules! may_begin {
    () => {
        "(not exists (
             select from hold h join trigger ht on ht.id = n.trigger_id
             where h.released_at is null and (h.until is null or h.until > now())
               and (h.triggers = ht.name or position('*' in h.triggers) > 0 and ht.name ~ ('^' || replace(h.triggers, '*', '.*') || '$'))
               and case h.kind when 'pin' then image_set(h.images) <> image_set(n.images)
                   else h.hard or n.actor is null or not exists (
                       select from rollout k where k.trigger_id = n.trigger_id and k.state = 'succeeded'
                         and image_set(k.images) = image_set(n.images)) end))"
    };
}
pub(super) use may_begin;
