-- What is asked of the facts. Not a migration: the whole file is applied again whenever its text or
-- the tables have changed, so it may be edited, and a new column reaches every view.
--
-- `origin = 'client'` marks what only a visitor's own client feeds. "First" and "last" are by
-- `created_at`, then by place in the journal. Subqueries are `global`, so that over many servers
-- they are asked once.

-- Totals

create or replace view counters_totals as
select
    id,
    toInt64(sum(counters.total)) as total,
    max(counters.date) as date
from counters
group by id;

-- A payment that was told again counts as it was told last: once, with the amount and the holders
-- of that telling. Payments told by an earlier program have no `payment_id`; each counts.

create or replace view payments_latest as
select * from payments final;

create or replace view ltv_totals as
select
    hhash,
    id,
    id_type,
    currency,
    sum(told.paid) as paid,
    count() as payments,
    argMax(told.oid, told.updated_at) as oid,
    argMax(told.org, told.updated_at) as org,
    argMax(told.updater, told.updated_at) as updater,
    argMax(told.owner, told.updated_at) as owner,
    max(told.updated_at) as updated_at,
    min(told.created_at) as created_at
from (
    select
        *,
        rank() over (
            partition by payment_id order by updated_at desc, ingest_seq desc, ingest_node
        ) as place
    from ltv final
) as told
where told.place = 1 or told.payment_id = toUUID('00000000-0000-0000-0000-000000000000')
group by hhash, id, id_type, currency;

create or replace view impression_daily_totals as
select
    oid,
    org,
    tid,
    campaign_id,
    day,
    variant_id,
    sum(states.total_impressions) as total_impressions,
    sum(states.anonymous_impressions) as anonymous_impressions,
    sum(states.identified_impressions) as identified_impressions,
    toInt64(uniqExactMerge(states.unique_visitors)) as unique_visitors,
    sum(states.conversions) as conversions,
    max(states.updated_at) as updated_at
from impression_daily_states as states
group by oid, org, tid, campaign_id, day, variant_id;

-- Who was seen with what, the latest of each key

create or replace view routed as
select
    hhash,
    ip,
    argMax(events.url, (events.created_at, ingest_seq)) as url,
    max(events.created_at) as updated_at
from events
where ip <> '' and events.url <> ''
group by hhash, ip;

-- Who was seen with what, the first of each key

create or replace view nodes as
select
    hhash,
    vid,
    argMin(events.uid, (events.created_at, ingest_seq)) as uid,
    iphash,
    argMin(events.ip, (events.created_at, ingest_seq)) as ip,
    argMin(events.sid, (events.created_at, ingest_seq)) as sid,
    min(events.created_at) as created_at
from events
where
    origin = 'client'
    and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    and iphash <> ''
group by hhash, vid, iphash;

create or replace view locations as
select
    hhash,
    vid,
    assumeNotNull(events.lat) as lat,
    assumeNotNull(events.lon) as lon,
    argMin(events.uid, (events.created_at, ingest_seq)) as uid,
    argMin(events.sid, (events.created_at, ingest_seq)) as sid,
    min(events.created_at) as created_at
from events
where
    origin = 'client'
    and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    and events.lat is not null
    and events.lon is not null
group by hhash, vid, lat, lon;

create or replace view aliases as
select
    hhash,
    vid,
    uid,
    argMin(events.sid, (events.created_at, ingest_seq)) as sid,
    min(events.created_at) as created_at
from events
where
    origin = 'client'
    and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    and uid <> toUUID('00000000-0000-0000-0000-000000000000')
group by hhash, vid, uid;

create or replace view referrals as
select
    hhash,
    vid,
    argMin(events.ref, (events.created_at, ingest_seq)) as ref,
    0 as gen,
    min(events.created_at) as created_at
from events
where
    origin = 'client'
    and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    and events.ref <> toUUID('00000000-0000-0000-0000-000000000000')
group by hhash, vid;

create or replace view referred as
select
    hhash,
    vid,
    argMin(events.rcode, (events.created_at, ingest_seq)) as rcode,
    0 as gen,
    min(events.created_at) as created_at
from events
where
    origin = 'client'
    and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    and events.rcode <> ''
group by hhash, vid;

-- What a visitor agreed to last is in force.

create or replace view agreements_latest as
select *
from agreements final
order by updated_at desc, ingest_seq desc, ingest_node
limit 1 by oid, vid;

-- Visitors: the whole first and the whole last event. The place in the journal is looked up first,
-- so that wide rows are read once and never sorted.

create or replace view visitors as
select *
from events
where (ingest_node, ingest_seq) global in (
    select
        first_seen.place.1,
        first_seen.place.2
    from (
        select argMin((ingest_node, ingest_seq), (created_at, ingest_seq)) as place
        from events
        where origin = 'client' and vid <> toUUID('00000000-0000-0000-0000-000000000000')
        group by oid, vid
    ) as first_seen
);

create or replace view visitors_latest as
select *
from events
where (ingest_node, ingest_seq) global in (
    select
        last_seen.place.1,
        last_seen.place.2
    from (
        select argMax((ingest_node, ingest_seq), (created_at, ingest_seq)) as place
        from events
        where origin = 'client' and vid <> toUUID('00000000-0000-0000-0000-000000000000')
        group by oid, vid
    ) as last_seen
);

create or replace view events_recent as
select *
from events
where created_at >= now64(3) - interval 7 day;

-- Sessions, derived again from the events of a visitor: 1,800 seconds without an event end one, and
-- so do 24 hours after its first. The latter depends on where the one before began, so the moments
-- of a visitor are walked through in order; `starts` are those that begin a session. `session`
-- counts from 1 for each visitor; the other columns are those of its first event.

create or replace view sessions as
with steps as (
    select
        oid,
        vid,
        arraySort(
            groupArray((toUnixTimestamp64Milli(created_at), ingest_seq, ingest_node, url))
        ) as events,
        arrayFold(
            (walk, at) -> if(
                empty(walk.3) or at - walk.2 >= 1800000 or at - walk.1 >= 86400000,
                (at, at, arrayPushBack(walk.3, at)),
                (walk.1, at, walk.3)
            ),
            arrayMap(event -> event.1, events),
            (toInt64(0), toInt64(0), emptyArrayInt64())
        ).3 as starts
    from events
    where origin = 'client' and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    group by oid, vid
),
parts as (
    select
        oid,
        vid,
        arrayJoin(steps.events) as event,
        toInt64(arrayCount(start -> start <= event.1, starts)) as session
    from steps
),
folded as (
    select
        session,
        max(event.1) as ended_ms,
        count() as total,
        argMax(event.4, (event.1, event.2)) as exit_url,
        argMin((event.3, event.2), (event.1, event.2)) as place
    from parts
    group by oid, vid, session
)
select
    folded.session as session,
    fromUnixTimestamp64Milli(folded.ended_ms, 'UTC') as ended_at,
    folded.ended_ms - toUnixTimestamp64Milli(first.created_at) as length_ms,
    folded.total as events,
    folded.exit_url as exit_url,
    first.*
from events as first
global join folded on first.ingest_node = folded.place.1 and first.ingest_seq = folded.place.2;

-- What visitors showed interest in. Tags come as a JSON list or as text with commas. The three
-- elements of `lists` are those for the audience, for the content, and those that say neither.

create or replace view visitor_interests as
with sent as (
    select
        *,
        arrayMap(
            tags -> arrayFilter(
                tag -> tag <> '',
                arrayMap(
                    tag -> trim(tag),
                    multiIf(
                        startsWith(tags, '['), JSONExtract(tags, 'Array(String)'),
                        startsWith(tags, '"'), splitByChar(',', JSONExtractString(tags)),
                        []
                    )
                )
            ),
            [
                ifNull(toJSONString(coalesce(params.audience, params.audience_tags)), ''),
                multiIf(
                    params.content is not null, ifNull(toJSONString(params.content), ''),
                    content <> '', toJSONString(content),
                    ifNull(toJSONString(params.content_tags), '')
                ),
                ifNull(toJSONString(params.tags), '')
            ]
        ) as lists
    from events
    where
        vid <> toUUID('00000000-0000-0000-0000-000000000000')
        and oid <> toUUID('00000000-0000-0000-0000-000000000000')
),
shown as (
    select
        * except content,
        lists[1] as audience,
        if(empty(lists[1]) and empty(lists[2]), lists[3], lists[2]) as content,
        arrayConcat(audience, content) as both
    from sent
    where notEmpty(audience) or notEmpty(content)
),
campaigns as (
    select
        oid,
        org,
        vid,
        uid,
        campaign,
        arraySort(groupUniqArrayArray(shown.audience)) as audience,
        arraySort(groupUniqArrayArray(shown.content)) as content
    from shown
    where campaign <> ''
    group by oid, org, vid, uid, campaign
),
sources as (
    select
        oid,
        org,
        vid,
        uid,
        arraySort(groupArray((campaign::String, (audience, content)))) as told,
        toJSONString(
            told::Map(String, Tuple(audience Array(String), content Array(String)))
        ) as campaign_sources
    from campaigns
    group by oid, org, vid, uid
),
people as (
    select
        oid,
        org,
        vid,
        uid,
        arraySort(groupUniqArrayArray(audience)) as audience_tags,
        sumMap(audience, arrayMap(tag -> 1, audience)) as audience_counts,
        arraySort(groupUniqArrayArray(content)) as content_tags,
        sumMap(content, arrayMap(tag -> 1, content)) as content_counts,
        arraySort(groupUniqArrayArray(both)) as interests,
        sumMap(both, arrayMap(tag -> 1, both)) as interest_counts,
        toInt64(count()) as total_interactions,
        toInt64(uniqExactIf(campaign, campaign <> '')) as unique_campaigns,
        min(created_at) as first_seen,
        max(created_at) as last_updated,
        argMaxIf(iphash, (created_at, ingest_seq), iphash <> '') as last_iphash,
        argMaxIf(lat, (created_at, ingest_seq), lat is not null) as last_lat,
        argMaxIf(lon, (created_at, ingest_seq), lon is not null) as last_lon,
        argMaxIf(country, (created_at, ingest_seq), country <> '') as last_country,
        argMaxIf(region, (created_at, ingest_seq), region <> '') as last_region,
        argMaxIf(city, (created_at, ingest_seq), city <> '') as last_city,
        argMaxIf(zip, (created_at, ingest_seq), zip <> '') as last_zip,
        maxOrNullIf(created_at, country <> '' or lat is not null) as location_updated_at
    from shown
    group by oid, org, vid, uid
)
select
    people.oid as oid,
    people.org as org,
    people.vid as vid,
    people.uid as uid,
    audience_tags,
    toJSONString(mapFromArrays(people.audience_counts.1, people.audience_counts.2))
        as audience_counts,
    content_tags,
    toJSONString(mapFromArrays(people.content_counts.1, people.content_counts.2))
        as content_counts,
    interests,
    toJSONString(mapFromArrays(people.interest_counts.1, people.interest_counts.2))
        as interest_counts,
    if(empty(sources.campaign_sources), '{}', sources.campaign_sources) as campaign_sources,
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
global left join sources
    on sources.oid = people.oid
    and sources.org = people.org
    and sources.vid = people.vid
    and sources.uid = people.uid;

-- A row that was set aside twice, because a batch was halved again after a crash, counts once.

create or replace view quarantined as
select *
from quarantine
order by received_at, ingest_seq
limit 1 by eid, sink, table_name;

-- Visits of short links. A browser that fetches ahead and a machine that names itself are not the
-- clicks of people, so they are counted apart.

create or replace view link_visits as
select
    params.link.:String as link,
    params.to.:String as target,
    created_at,
    (verdict = 'human')::Bool as is_human,
    if(has(reasons, 'prefetch'), 'prefetch', verdict::String) as kind,
    vid,
    oid,
    country,
    device_class,
    channel,
    last as referrer,
    eid
from events
where etyp = 'redirect' and params.link.:String is not null;

create or replace view link_totals as
select
    assumeNotNull(link_visits.link) as link,
    toInt64(countIf(is_human)) as clicks,
    toInt64(uniqExactIf(
        vid,
        is_human and vid <> toUUID('00000000-0000-0000-0000-000000000000')
    )) as visitors,
    toInt64(countIf(not is_human)) as others,
    toInt64(countIf(kind = 'prefetch')) as prefetches,
    toInt64(countIf(kind = 'preview')) as previews,
    toInt64(countIf(kind = 'scanner')) as scanners,
    max(created_at) as last_visit
from link_visits
group by link;
