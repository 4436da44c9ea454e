-- Changes of holds, which the ledger publishes to ROLLOUTS.

create table hold_change (
    ordinal bigint generated always as identity primary key,
    hold_id bigint not null references hold,
    change text not null check (change in ('set', 'released', 'expired')),
    changed_at timestamptz not null default now(),
    published boolean not null default false,
    unique (hold_id, change)
);
create index hold_change_to_publish on hold_change (ordinal) where not published;
comment on table hold_change is 'Every change of every hold. Rows are only ever marked as published.';
comment on column hold_change.change is 'set; released: by a person; expired: until has passed.';

-- Recorded by the database, so that services of the version before record their changes too.
create function record_hold_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into hold_change (hold_id, change) values (new.id, 'set');
    elsif old.released_at is null and new.released_at is not null then
        insert into hold_change (hold_id, change)
        select new.id, 'released' where new.until is null or new.until > now();
    end if;
    return null;
end $$;
create trigger record_change after insert or update on hold for each row execute function record_hold_change();
