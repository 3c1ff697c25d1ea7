-- What is derived from the facts. Not a migration: the whole file is applied again whenever its
-- text or the tables have changed, so it may be edited, and a new column reaches every view.
--
-- `origin = 'client'` marks what only a visitor's own client feeds. Days are UTC days of
-- `created_at`, but for `dailies`, which serves limits and therefore counts by our own clock.
-- "First" and "last" are by `created_at`, then by place in the journal.

-- Counters

create or replace view ips as
select hhash, ip, count(*) as total, created_at::date as date
from events
where ip is not null
group by all;

create or replace view hits as
select hhash, url, count(*) as total, created_at::date as date
from events
where origin = 'client' and url is not null
group by all;

create or replace view dailies as
select ip, received_at::date as day, count(*) as total
from events
where origin = 'client' and ip is not null
group by all;

create or replace view outcomes as
select hhash, outcome, sink, created_at::date as created, url, count(*) as total
from events
where origin = 'client' and outcome is not null
group by all;

create or replace view referrers as
select hhash, last as url, count(*) as total, created_at::date as date
from events
where origin = 'client' and last is not null
group by all;

create or replace view browsers as
select hhash, bhash, browser, count(*) as total, created_at::date as date
from events
where origin = 'client'
group by all;

create or replace view reqs as
select hhash, vid, count(*) as total, created_at::date as date
from events
where origin = 'client'
group by all;

create or replace view counters_totals as
select id, sum(total)::bigint as total, max(date) as date
from (
    select id, total, date from counters
    union all
    select 'vids_created', 1, created_at::date from events where origin = 'client' and is_new
)
group by id;

-- A payment that was told again counts as it was told last: once, with the amount and the holders of
-- that telling. Payments told by an earlier program have no `payment_id`; each counts.

create or replace view payments_latest as
select *
from payments
qualify row_number() over (
    partition by id order by updated_at desc, ingest_seq desc, ingest_node
) = 1;

create or replace view ltv_totals as
select
    hhash,
    id,
    id_type,
    currency,
    sum(paid) as paid,
    count(*) as payments,
    last(oid order by updated_at) as oid,
    last(org order by updated_at) as org,
    last(updater order by updated_at) as updater,
    last(owner order by updated_at) as owner,
    max(updated_at) as updated_at,
    min(created_at) as created_at
from (
    select *
    from ltv
    qualify payment_id is null or rank() over (
        partition by payment_id order by updated_at desc, ingest_seq desc, ingest_node
    ) = 1
)
group by hhash, id, id_type, currency;

create or replace view impression_daily_totals as
select
    oid,
    org,
    tid,
    campaign_id,
    day,
    variant_id,
    sum(total_impressions)::bigint as total_impressions,
    sum(anonymous_impressions)::bigint as anonymous_impressions,
    sum(identified_impressions)::bigint as identified_impressions,
    count(distinct vid) as unique_visitors,
    sum(conversions)::bigint as conversions,
    max(updated_at) as updated_at
from impression_daily
group by oid, org, tid, campaign_id, day, variant_id;

-- Who was seen with what, the latest of each key

create or replace view hosts as
select hhash, host as hostname, max(created_at) as created_at
from events
where origin = 'client' and host <> ''
group by all;

create or replace view userhosts as
select
    hhash,
    uid,
    vid,
    last(sid order by created_at, ingest_seq) as sid,
    max(created_at) as created_at
from events
where origin = 'client' and uid is not null
group by hhash, uid, vid;

create or replace view usernames as
select
    hhash,
    nhash as uhash,
    vid,
    last(sid order by created_at, ingest_seq) as sid,
    max(created_at) as created_at
from events
where origin = 'client' and nhash is not null
group by hhash, nhash, vid;

create or replace view emails as
select
    hhash,
    ehash,
    last(vid order by created_at, ingest_seq) as vid,
    last(sid order by created_at, ingest_seq) as sid,
    max(created_at) as created_at
from events
where origin = 'client' and ehash is not null
group by hhash, ehash;

create or replace view cells as
select
    hhash,
    chash,
    vid,
    last(sid order by created_at, ingest_seq) as sid,
    max(created_at) as created_at
from events
where origin = 'client' and chash is not null
group by hhash, chash, vid;

create or replace view routed as
select
    hhash,
    ip,
    last(url order by created_at, ingest_seq) as url,
    max(created_at) as updated_at
from events
where ip is not null and url is not null
group by hhash, ip;

-- Who was seen with what, the first of each key

create or replace view nodes as
select
    hhash,
    vid,
    first(uid order by created_at, ingest_seq) as uid,
    iphash,
    first(ip order by created_at, ingest_seq) as ip,
    first(sid order by created_at, ingest_seq) as sid,
    min(created_at) as created_at
from events
where origin = 'client' and vid is not null and iphash is not null
group by hhash, vid, iphash;

create or replace view locations as
select
    hhash,
    vid,
    lat,
    lon,
    first(uid order by created_at, ingest_seq) as uid,
    first(sid order by created_at, ingest_seq) as sid,
    min(created_at) as created_at
from events
where origin = 'client' and vid is not null and lat is not null and lon is not null
group by hhash, vid, lat, lon;

create or replace view aliases as
select
    hhash,
    vid,
    uid,
    first(sid order by created_at, ingest_seq) as sid,
    min(created_at) as created_at
from events
where origin = 'client' and vid is not null and uid is not null
group by hhash, vid, uid;

create or replace view referrals as
select
    hhash,
    vid,
    first(ref order by created_at, ingest_seq) as ref,
    0 as gen,
    min(created_at) as created_at
from events
where origin = 'client' and vid is not null and ref is not null
group by hhash, vid;

create or replace view referred as
select
    hhash,
    vid,
    first(rcode order by created_at, ingest_seq) as rcode,
    0 as gen,
    min(created_at) as created_at
from events
where origin = 'client' and vid is not null and rcode is not null
group by hhash, vid;

-- What a visitor agreed to last is in force.

create or replace view agreements_latest as
select *
from agreements
qualify row_number() over (
    partition by oid, vid order by updated_at desc, ingest_seq desc, ingest_node
) = 1;

-- Visitors: the whole first and the whole last event. The place in the journal is looked up first,
-- so that the wide rows are read once and never sorted.

create or replace view visitors as
select events.*
from events
join (
    select arg_min(
        {'node': ingest_node, 'seq': ingest_seq},
        {'at': created_at, 'seq': ingest_seq}
    ) as place
    from events
    where origin = 'client' and vid is not null
    group by oid, vid
) as first_seen
on events.ingest_node = first_seen.place.node and events.ingest_seq = first_seen.place.seq;

create or replace view visitors_latest as
select events.*
from events
join (
    select arg_max(
        {'node': ingest_node, 'seq': ingest_seq},
        {'at': created_at, 'seq': ingest_seq}
    ) as place
    from events
    where origin = 'client' and vid is not null
    group by oid, vid
) as last_seen
on events.ingest_node = last_seen.place.node and events.ingest_seq = last_seen.place.seq;

create or replace view events_recent as
select *
from events
where created_at >= make_timestamp(epoch_us(now())) - interval 7 day;

-- Sessions, derived again from the events of a visitor: 1,800 seconds without an event end one, and
-- so do 24 hours after its first. The latter depends on where the one before began, hence the
-- recursion; it takes as many rounds as the longest visit has days. `session` counts from 1 for
-- each visitor; the other columns are those of its first event.

create or replace view sessions as
with recursive steps as (
    select
        oid,
        vid,
        created_at,
        ingest_node,
        ingest_seq,
        url,
        lag(created_at) over by_visitor as before
    from events
    where origin = 'client' and vid is not null
    window by_visitor as (partition by oid, vid order by created_at, ingest_seq)
),
visits as materialized (
    select
        *,
        count_if(coalesce(created_at - before >= interval 1800 second, true)) over (
            partition by oid, vid order by created_at, ingest_seq
            rows between unbounded preceding and current row
        ) as visit
    from steps
),
starts as (
    select oid, vid, visit, min(created_at) as started_at
    from visits
    group by oid, vid, visit
    union all
    select visits.oid, visits.vid, visits.visit, min(visits.created_at)
    from starts
    join visits
        on visits.oid is not distinct from starts.oid
        and visits.vid = starts.vid
        and visits.visit = starts.visit
        and visits.created_at >= starts.started_at + interval 24 hour
    group by visits.oid, visits.vid, visits.visit
),
parts as (
    select
        visits.*,
        count_if(starts.started_at is not null and before is distinct from created_at) over (
            partition by visits.oid, visits.vid order by created_at, ingest_seq
            rows between unbounded preceding and current row
        ) as session
    from visits
    left join starts
        on starts.oid is not distinct from visits.oid
        and starts.vid = visits.vid
        and starts.visit = visits.visit
        and starts.started_at = visits.created_at
),
folded as (
    select
        session,
        max(created_at) as ended_at,
        count(*) as events,
        last(url order by created_at, ingest_seq) as exit_url,
        arg_min(
            {'node': ingest_node, 'seq': ingest_seq},
            {'at': created_at, 'seq': ingest_seq}
        ) as place
    from parts
    group by oid, vid, session
)
select
    folded.session,
    folded.ended_at,
    epoch_ms(folded.ended_at) - epoch_ms(events.created_at) as length_ms,
    folded.events,
    folded.exit_url,
    events.*
from folded
join events
    on events.ingest_node = folded.place.node and events.ingest_seq = folded.place.seq;

-- What visitors showed interest in. Tags come as a JSON list or as text with commas.

create or replace macro tag_list(tags) as list_filter(
    list_transform(
        case json_type(tags)
            when 'ARRAY' then json_transform(tags, '["VARCHAR"]')
            when 'VARCHAR' then string_split(tags ->> '$', ',')
            else []
        end,
        lambda tag: trim(tag)
    ),
    lambda tag: tag <> ''
);

create or replace view visitor_interests as
with named as (
    select
        *,
        coalesce(tag_list(coalesce(params -> 'audience', params -> 'audience_tags')), [])
            as audience,
        coalesce(
            tag_list(coalesce(params -> 'content', to_json(content), params -> 'content_tags')),
            []
        ) as told,
        coalesce(tag_list(params -> 'tags'), []) as other
    from events
    where vid is not null and oid is not null
),
tagged as (
    select
        * exclude (told, other, content),
        case when audience = [] and told = [] then other else told end as content
    from named
),
shown as (
    select * from tagged where audience <> [] or content <> []
),
campaigns as (
    select
        oid,
        org,
        vid,
        uid,
        campaign,
        list_sort(list_distinct(flatten(list(audience)))) as audience,
        list_sort(list_distinct(flatten(list(content)))) as content
    from shown
    where campaign is not null
    group by oid, org, vid, uid, campaign
),
sources as (
    select
        oid,
        org,
        vid,
        uid,
        to_json(map(
            list(campaign order by campaign),
            list({'audience': audience, 'content': content} order by campaign)
        )) as campaign_sources
    from campaigns
    group by oid, org, vid, uid
),
people as (
    select
        oid,
        org,
        vid,
        uid,
        flatten(list(audience)) as audience,
        flatten(list(content)) as content,
        count(*) as total_interactions,
        count(distinct campaign) as unique_campaigns,
        min(created_at) as first_seen,
        max(created_at) as last_updated,
        last(iphash order by created_at, ingest_seq) filter (iphash is not null) as last_iphash,
        last(lat order by created_at, ingest_seq) filter (lat is not null) as last_lat,
        last(lon order by created_at, ingest_seq) filter (lon is not null) as last_lon,
        last(country order by created_at, ingest_seq) filter (country is not null) as last_country,
        last(region order by created_at, ingest_seq) filter (region is not null) as last_region,
        last(city order by created_at, ingest_seq) filter (city is not null) as last_city,
        last(zip order by created_at, ingest_seq) filter (zip is not null) as last_zip,
        max(created_at) filter (country is not null or lat is not null) as location_updated_at
    from shown
    group by oid, org, vid, uid
)
select
    people.oid,
    people.org,
    people.vid,
    people.uid,
    list_sort(list_distinct(audience)) as audience_tags,
    coalesce(to_json(list_aggregate(audience, 'histogram')), '{}') as audience_counts,
    list_sort(list_distinct(content)) as content_tags,
    coalesce(to_json(list_aggregate(content, 'histogram')), '{}') as content_counts,
    list_sort(list_distinct(audience || content)) as interests,
    coalesce(to_json(list_aggregate(audience || content, 'histogram')), '{}') as interest_counts,
    coalesce(campaign_sources, '{}') as campaign_sources,
    total_interactions,
    unique_campaigns,
    first_seen,
    last_updated,
    last_updated as updated_at,
    last_iphash,
    last_lat,
    last_lon,
    last_country,
    last_region,
    last_city,
    last_zip,
    location_updated_at
from people
left join sources
    on sources.oid = people.oid
    and sources.org is not distinct from people.org
    and sources.vid = people.vid
    and sources.uid is not distinct from people.uid;

-- A row that was set aside twice, because a batch was halved again after a crash, counts once.

create or replace view quarantined as
select *
from quarantine
qualify row_number() over (
    partition by eid, sink, table_name order by received_at, ingest_seq
) = 1;

-- Visits of short links. A browser that fetches ahead and a machine that names itself are not the
-- clicks of people, so they are counted apart.

create or replace view link_visits as
select
    (params->>'$.link') as link,
    (params->>'$.to') as target,
    created_at,
    verdict = 'human' as is_human,
    case when list_contains(reasons, 'prefetch') then 'prefetch' else verdict end as kind,
    vid,
    oid,
    country,
    device_class,
    channel,
    last as referrer,
    eid
from events
where etyp = 'redirect' and (params->>'$.link') is not null;

create or replace view link_totals as
select
    link,
    count(*) filter (where is_human) as clicks,
    count(distinct vid) filter (where is_human) as visitors,
    count(*) filter (where not is_human) as others,
    count(*) filter (where kind = 'prefetch') as prefetches,
    count(*) filter (where kind = 'preview') as previews,
    count(*) filter (where kind = 'scanner') as scanners,
    max(created_at) as last_visit
from link_visits
group by link;
