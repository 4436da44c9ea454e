//! The conditions of statements that begin attempts and looks.

/// The SQL condition that the hold `h` is in force about the trigger `$t`. Names and patterns of
/// triggers consist of a-z, 0-9, - and *.
macro_rules! in_force {
    ($t:literal) => {
        concat!(
            "(h.released_at is null and (h.until is null or h.until > now()) and (h.triggers = ",
            $t,
            ".name or position('*' in h.triggers) > 0 and ",
            $t,
            ".name ~ ('^' || replace(h.triggers, '*', '.*') || '$')))"
        )
    };
}
pub(super) use in_force;

/// The SQL condition that the settings in force of the trigger `t` are those with the column `hash`
/// of `$own`. A trigger of an earlier version has none on record; one of the api or of annotations
/// without any has lost them.
macro_rules! in_force_are {
    ($own:literal) => {
        concat!(
            "(t.spec_hash = ",
            $own,
            ".hash or t.spec_hash is null and coalesce(t.door, 'file') in ('file', 'folder'))"
        )
    };
}
pub(super) use in_force_are;

/// The SQL condition that the rollout `n` has not closed, and that no hold in force stands against
/// it. The columns `trigger_id`, `images`, `actor` and `closes_at` are read. An order of a person
/// passes a soft freeze and a fault with a set that has succeeded before. The planner evaluates the
/// same gates and others beforehand; this check counts.
macro_rules! no_hold {
    () => {
        concat!("((n.closes_at is null or now() < n.closes_at) and not exists (
             select from hold h join trigger ht on ht.id = n.trigger_id
             where ", crate::store::holds::in_force!("ht"), "
               and case h.kind when 'pin' then image_set(h.images) <> image_set(n.images)
                   else h.hard or n.actor is null or not exists (
                       select from rollout k where k.trigger_id = n.trigger_id and k.state = 'succeeded'
                         and image_set(k.images) = image_set(n.images)) end))")
    };
}
pub(super) use no_hold;

/// The SQL condition that an attempt at the rollout `n` may begin: no hold stands against it, and
/// no look of the trigger runs a command, since two commands of a trigger never run at once.
///
/// Only an order of a person begins less than `gap` after the rollout before, which may have begun
/// since the verdict of the planner, or with `finish` before the result of that one.
macro_rules! may_begin {
    () => {
        concat!(
            "(",
            no_hold!(),
            " and not exists (
                 select from rollout_look l where l.trigger_id = n.trigger_id and l.grace_seconds is not null)
              and (n.actor is not null or n.attempts > 0 or not exists (
                 select from trigger gt cross join lateral (
                     select b.started_at from rollout b where b.trigger_id = gt.id and b.started_at is not null
                     order by b.number desc limit 1) b
                 where gt.id = n.trigger_id and b.started_at > now() - gt.gap))
              and (n.actor is not null or not exists (
                 select from rollout w join trigger ft on ft.id = w.trigger_id
                 where w.trigger_id = n.trigger_id and w.state = 'watching' and ft.finish)))"
        )
    };
}
pub(super) use may_begin;

/// The SQL condition that nobody has rejected the rollout `n`. A person may reject it between the
/// verdict of the planner that its gates are open and its first attempt.
macro_rules! not_rejected {
    () => {
        "not exists (select from approval j where j.rollout_id = n.id and j.verdict = 'rejected')"
    };
}
pub(super) use not_rejected;

/// The SQL condition that a newer rollout than `o`, of the trigger `t`, waits only for the end of a
/// look.
macro_rules! displaced {
    () => {
        concat!(
            "(t.configured and t.state = 'active' and exists (
                 select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number
                     and n.state = 'pending' and n.next_attempt_at <= now() and (not t.finish or n.actor is not null) and ",
            no_hold!(),
            "))"
        )
    };
}
pub(super) use displaced;
