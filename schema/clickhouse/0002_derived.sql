-- What is counted while it is inserted: targets, and the materialized views that feed them from
-- facts. Everything else that derives is asked of the facts (views.sql).
--
-- A view sees a block of rows once, because the token of a batch reaches its target too: the
-- targets therefore have the same deduplication windows and the same durability as the facts.
-- Totals are added up by merges, so a question sums them: `select sum(total) … group by …`.
-- How many different visitors there were cannot be summed: such a column is a state, which a view
-- merges.
--
-- `origin = 'client'` marks what only a visitor's own client feeds. Days are UTC days of
-- `created_at`, but for `dailies`, which serves limits and therefore counts by our own clock.

-- retention by date
create table if not exists ips (
    hhash LowCardinality(String),
    ip String,
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (hhash, ip, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists ips_feed to ips as
select
    hhash,
    ip,
    count() as total,
    toDate(created_at) as date
from events
where ip <> ''
group by hhash, ip, date;

-- retention by date
create table if not exists hits (
    hhash LowCardinality(String),
    url String,
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (hhash, url, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists hits_feed to hits as
select
    hhash,
    url,
    count() as total,
    toDate(created_at) as date
from events
where origin = 'client' and url <> ''
group by hhash, url, date;

-- retention by day
create table if not exists dailies (
    ip String,
    day Date,
    total UInt64
)
engine = SummingMergeTree(total)
partition by toYYYYMM(day)
order by (ip, day)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists dailies_feed to dailies as
select
    ip,
    toDate(received_at) as day,
    count() as total
from events
where origin = 'client' and ip <> ''
group by ip, day;

-- retention by created
create table if not exists outcomes (
    hhash LowCardinality(String),
    outcome LowCardinality(String),
    sink LowCardinality(String),
    created Date,
    url String,
    total UInt64
)
engine = SummingMergeTree(total)
partition by toYYYYMM(created)
order by (hhash, outcome, sink, url, created)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists outcomes_feed to outcomes as
select
    hhash,
    outcome,
    sink,
    toDate(created_at) as created,
    url,
    count() as total
from events
where origin = 'client' and outcome <> ''
group by hhash, outcome, sink, created, url;

-- retention by date
create table if not exists referrers (
    hhash LowCardinality(String),
    url String,
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (hhash, url, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists referrers_feed to referrers as
select
    hhash,
    last as url,
    count() as total,
    toDate(created_at) as date
from events
where origin = 'client' and last <> ''
group by hhash, last, date;

-- retention by date
create table if not exists browsers (
    hhash LowCardinality(String),
    bhash String,
    browser LowCardinality(String),
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (hhash, bhash, browser, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists browsers_feed to browsers as
select
    hhash,
    bhash,
    browser,
    count() as total,
    toDate(created_at) as date
from events
where origin = 'client'
group by hhash, bhash, browser, date;

-- retention by date
create table if not exists reqs (
    hhash LowCardinality(String),
    vid UUID,
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (hhash, vid, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists reqs_feed to reqs as
select
    hhash,
    vid,
    count() as total,
    toDate(created_at) as date
from events
where origin = 'client'
group by hhash, vid, date;

create materialized view if not exists counters_feed to counters as
select
    'vids_created' as id,
    count() as total,
    toDate(created_at) as date
from events
where origin = 'client' and is_new
group by date;

-- retention by day
create table if not exists impression_daily_states (
    oid UUID,
    org LowCardinality(String),
    tid UUID,
    campaign_id LowCardinality(String),
    day Date,
    variant_id LowCardinality(String),
    total_impressions SimpleAggregateFunction(sum, Int64),
    anonymous_impressions SimpleAggregateFunction(sum, Int64),
    identified_impressions SimpleAggregateFunction(sum, Int64),
    unique_visitors AggregateFunction(uniqExact, UUID),
    conversions SimpleAggregateFunction(sum, Int64),
    updated_at SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
engine = AggregatingMergeTree
partition by toYYYYMM(day)
order by (oid, tid, day, campaign_id, variant_id, org)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists impression_daily_feed to impression_daily_states as
select
    oid,
    org,
    tid,
    campaign_id,
    day,
    variant_id,
    sum(told.total_impressions) as total_impressions,
    sum(told.anonymous_impressions) as anonymous_impressions,
    sum(told.identified_impressions) as identified_impressions,
    uniqExactStateIf(vid, vid <> toUUID('00000000-0000-0000-0000-000000000000'))
        as unique_visitors,
    sum(told.conversions) as conversions,
    max(told.updated_at) as updated_at
from impression_daily as told
group by oid, org, tid, campaign_id, day, variant_id;

-- Who was seen with what, the latest of each key. Not in partitions: the latest replaces the one
-- before it, whenever that was.

-- retention by created_at
create table if not exists hosts (
    hhash LowCardinality(String),
    hostname LowCardinality(String),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(created_at)
order by (hhash, hostname)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists hosts_feed to hosts as
select
    hhash,
    host as hostname,
    max(told.created_at) as created_at
from events as told
where origin = 'client' and host <> ''
group by hhash, host;

-- retention by created_at
create table if not exists userhosts (
    hhash LowCardinality(String),
    uid UUID,
    vid UUID,
    sid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(created_at)
order by (hhash, uid, vid)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists userhosts_feed to userhosts as
select
    hhash,
    uid,
    vid,
    argMax(told.sid, (told.created_at, ingest_seq)) as sid,
    max(told.created_at) as created_at
from events as told
where origin = 'client' and uid <> toUUID('00000000-0000-0000-0000-000000000000')
group by hhash, uid, vid;

-- retention by created_at
create table if not exists usernames (
    hhash LowCardinality(String),
    uhash String,
    vid UUID,
    sid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(created_at)
order by (hhash, uhash, vid)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists usernames_feed to usernames as
select
    hhash,
    nhash as uhash,
    vid,
    argMax(told.sid, (told.created_at, ingest_seq)) as sid,
    max(told.created_at) as created_at
from events as told
where origin = 'client' and nhash <> ''
group by hhash, nhash, vid;

-- retention by created_at
create table if not exists emails (
    hhash LowCardinality(String),
    ehash String,
    vid UUID,
    sid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(created_at)
order by (hhash, ehash)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists emails_feed to emails as
select
    hhash,
    ehash,
    argMax(told.vid, (told.created_at, ingest_seq)) as vid,
    argMax(told.sid, (told.created_at, ingest_seq)) as sid,
    max(told.created_at) as created_at
from events as told
where origin = 'client' and ehash <> ''
group by hhash, ehash;

-- retention by created_at
create table if not exists cells (
    hhash LowCardinality(String),
    chash String,
    vid UUID,
    sid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(created_at)
order by (hhash, chash, vid)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

create materialized view if not exists cells_feed to cells as
select
    hhash,
    chash,
    vid,
    argMax(told.sid, (told.created_at, ingest_seq)) as sid,
    max(told.created_at) as created_at
from events as told
where origin = 'client' and chash <> ''
group by hhash, chash, vid;
