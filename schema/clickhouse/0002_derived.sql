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
    sum(impression_daily.total_impressions) as total_impressions,
    sum(impression_daily.anonymous_impressions) as anonymous_impressions,
    sum(impression_daily.identified_impressions) as identified_impressions,
    uniqExactStateIf(vid, vid <> toUUID('00000000-0000-0000-0000-000000000000'))
        as unique_visitors,
    sum(impression_daily.conversions) as conversions,
    max(impression_daily.updated_at) as updated_at
from impression_daily
group by oid, org, tid, campaign_id, day, variant_id;
