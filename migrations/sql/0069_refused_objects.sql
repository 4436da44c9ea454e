-- Annotated objects that an ImageTrigger names.

alter table discovered add column refused text check (length(refused) between 1 and 4000);
comment on column discovered.refused is 'The reason for which the annotations have no effect: an ImageTrigger names the object. Null: they count.';
