-- Where in which journal each row came from, in the tables that did not say so yet.

alter table mthreads add column ingest_node varchar;
alter table mthreads add column ingest_seq bigint;

alter table mstore add column ingest_node varchar;
alter table mstore add column ingest_seq bigint;

alter table mtriage add column ingest_node varchar;
alter table mtriage add column ingest_seq bigint;

alter table impression_daily add column ingest_node varchar;
alter table impression_daily add column ingest_seq bigint;

alter table redirects add column ingest_node varchar;
alter table redirects add column ingest_seq bigint;

alter table redirect_history add column ingest_node varchar;
alter table redirect_history add column ingest_seq bigint;
