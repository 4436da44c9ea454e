-- Approvals and rejections of sets of images.

create table approval (
    id bigint generated always as identity primary key,
    trigger_id integer not null references trigger,
    set text not null,
    rollout_id uuid not null references rollout,
    act_id bigint not null references act,
    actor text not null,
    verdict text not null check (verdict in ('approved', 'rejected')),
    reason text check (length(reason) between 1 and 500),
    given_at timestamptz not null default now(),
    check (verdict = 'approved' or reason is not null)
);
create index approval_of_set on approval (trigger_id, set, id);
create index approval_of_rollout on approval (rollout_id);
comment on table approval is 'Verdicts of people about sets of images. Append-only.';
comment on column approval.set is 'The set, as image_set names it: an approval counts for the set, whichever rollout has it.';
comment on column approval.rollout_id is 'The rollout that the person saw. A rejection ends this rollout alone.';

create trigger append_only before update or delete on approval for each statement execute function refuse_rewriting();
create trigger append_only_truncate before truncate on approval for each statement execute function refuse_rewriting();
alter table approval enable always trigger append_only;
alter table approval enable always trigger append_only_truncate;
