-- What it takes to count a payment once, to tell currencies apart, and to lose no field.

alter table payments add column eid uuid;
alter table payments add column hhash varchar;
alter table payments add column params json;
alter table payments add column ingest_node varchar;
alter table payments add column ingest_seq bigint;

alter table ltv add column payment_id uuid;
alter table ltv add column currency varchar;
alter table ltv add column ingest_node varchar;
alter table ltv add column ingest_seq bigint;

alter table agreements add column params json;
alter table agreements add column ingest_node varchar;
alter table agreements add column ingest_seq bigint;

alter table agreed add column params json;
alter table agreed add column ingest_node varchar;
alter table agreed add column ingest_seq bigint;
