//! The acts of people, written as the api writes them.

use super::world::World;

impl World<'_> {
    async fn execute(&mut self, sql: &'static str) {
        sqlx::query(sql)
            .bind(self.trigger)
            .execute(&mut *self.sql)
            .await
            .unwrap();
    }

    pub(super) async fn freeze(&mut self, hard: bool) {
        let sql = match hard {
            true => {
                "insert into hold (kind, triggers, hard, reason, actor) select 'freeze', name, true, 'why', 'ann' from trigger where id = $1"
            }
            false => {
                "insert into hold (kind, triggers, reason, actor) select 'freeze', name, 'why', 'ann' from trigger where id = $1"
            }
        };
        self.execute(sql).await;
    }

    pub(super) async fn thaw(&mut self) {
        self.execute(
            "update hold set released_at = now(), released_by = 'ann' where id = (
                 select min(h.id) from hold h join trigger t on t.name = h.triggers
                 where t.id = $1 and h.kind = 'freeze' and h.released_at is null)",
        )
        .await;
    }

    /// Pins one of the sets that succeeded, and orders it.
    pub(super) async fn roll_back(&mut self, which: u8) {
        let known: Vec<i64> = sqlx::query_scalar(
            "select number from rollout where trigger_id = $1 and state = 'succeeded' order by number",
        )
        .bind(self.trigger)
        .fetch_all(&mut *self.sql)
        .await
        .unwrap();
        if known.is_empty() {
            return;
        }
        let number = known[usize::from(which) % known.len()];
        self.end_pins().await;
        sqlx::query(
            "insert into hold (kind, triggers, images, actor)
             select 'pin', t.name, o.images, 'ann' from rollout o join trigger t on t.id = o.trigger_id where t.id = $1 and o.number = $2",
        )
        .bind(self.trigger)
        .bind(number)
        .execute(&mut *self.sql)
        .await
        .unwrap();
        self.order("rollout", "rollback", Some(number), false).await;
    }

    async fn end_pins(&mut self) {
        self.execute(
            "update hold h set released_at = now(), released_by = 'ann' from trigger t
             where t.id = $1 and h.triggers = t.name and h.kind in ('pin', 'fault') and h.released_at is null",
        )
        .await;
    }

    pub(super) async fn release(&mut self) {
        self.end_pins().await;
        self.order("release", "release", None, false).await;
    }

    /// Orders the wanted set again: while pinned, the pinned one.
    pub(super) async fn roll_out(&mut self) {
        let pinned: Option<i64> = sqlx::query_scalar(
            "select max(o.number) from hold h join trigger t on t.name = h.triggers
             join rollout o on o.trigger_id = t.id and image_set(o.images) = image_set(h.images)
             where t.id = $1 and h.kind = 'pin' and h.released_at is null",
        )
        .bind(self.trigger)
        .fetch_one(&mut *self.sql)
        .await
        .unwrap();
        self.order("rollout", "order", pinned, true).await;
    }

    pub(super) async fn retry(&mut self) {
        self.execute("update trigger set retry = true where id = $1")
            .await;
    }

    pub(super) async fn cancel(&mut self) {
        let last: Option<i64> =
            sqlx::query_scalar("select max(number) from rollout where trigger_id = $1")
                .bind(self.trigger)
                .fetch_one(&mut *self.sql)
                .await
                .unwrap();
        if last.is_some() {
            self.order("cancel", "order", last, false).await;
        }
    }

    pub(super) async fn pause(&mut self) {
        self.execute("update trigger set state = 'paused' where id = $1")
            .await;
    }

    pub(super) async fn resume(&mut self) {
        self.execute("update trigger set state = 'resuming' where id = $1 and state = 'paused'")
            .await;
    }

    async fn order(&mut self, kind: &str, cause: &str, rollout: Option<i64>, again: bool) {
        sqlx::query(
            "with a as (
                 insert into act (actor, act, trigger, request_id) select 'ann', $2, name, 'x' from trigger where id = $1 returning id)
             insert into rollout_order (act_id, trigger_id, kind, cause, images, rollout_id, again, actor, reason)
             select a.id, t.id, $2, $3, (select o.images from rollout o where $2 = 'rollout' and o.trigger_id = t.id and o.number = $4),
                 (select o.id from rollout o where $2 = 'cancel' and o.trigger_id = t.id and o.number = $4), $5, 'ann', 'why'
             from a, trigger t where t.id = $1",
        )
        .bind(self.trigger)
        .bind(kind)
        .bind(cause)
        .bind(rollout)
        .bind(again)
        .execute(&mut *self.sql)
        .await
        .unwrap();
    }
}
