-- Facts, as the tracker inserts them, and the small tables beside them. What is derived follows in
-- the next file.
--
-- This is the form for one server. With `Cluster` in the configuration the same text becomes the
-- form for many: each table is made as `X_local` with a replicated engine and gets a twin `X` that
-- distributes over the shards by the expression after `-- shard by`, which depends on the row
-- alone, so that a repeated insert meets the shard that has it.
--
-- Retention. With `PruneOldData` rows are dropped `DataRetentionDays` after the moment named by
-- `-- retention by`. What is in force stays: links, agreements, accounts.
--
-- Sorting. Every fact has a key that tells its row from all others, so `final` is allowed
-- everywhere and changes nothing but what was told again: `events` by `eid`, `payments` by `id`,
-- `ltv` by payment and holder, the rest by their place in the journal.
--
-- Absent values. A text is '', an id is the zero id, a count, size or version is 0, as existing
-- databases have them. NULL stands where 0 would be a lie: coordinates, scores, durations, amounts,
-- rates, positions and consent flags that nobody told, and moments that have not come.
--
-- Partitions are months where much is stored: finer ones would mean more parts for each insert,
-- and one insert may touch a hundred at most. What is told again must meet its row, so tables that
-- keep the latest telling have none.
--
-- JSON. No key gets a column of its own: keys are what strangers send, and 10,000 rows with 600
-- different keys became 7,213 files in one part. Reading one key from the common storage took as
-- long (300,000 rows: 8 ms either way), inserting 40 % less.
--
-- Deduplication windows. A batch comes with a token; a table forgets the oldest tokens beyond its
-- window. Each partition of an insert takes a place in it, and there is at most one insert a
-- second, so 10,000 are the last hours, and never less than the batch before.
--
-- `fsync_after_insert`: what an insert was answered for is on the disk, not only in its cache; it
-- takes 10 ms of an insert of 1,000 rows. What merges write is not synced, but they keep their
-- sources for eight minutes.

-- Which of these files are applied, and how their text was. Made first: a database that has it is
-- ours, however far it got.
-- shard by cityHash64(name)
create table if not exists schema_version (
    number Int32,
    name String,
    checksum UInt32,
    applied_at DateTime64(3, 'UTC')
)
engine = ReplacingMergeTree(applied_at)
order by name;

-- Every tracked event. Sorted for questions about a site and a time, within an hour by visitor, so
-- that a visit lies together. Rows read of 1.6 million (three sites, 60 days), with and without the
-- indexes:
--     site and day      32,659   450,819        visitor       32,768   1,600,000
--     site and hour     16,275   450,819        session       40,960   1,600,000
--     all sites, a day  63,414   746,667        event         16,384   1,600,000
--     received since    50,848   266,666        range audit   18,080     266,666
-- They add 2.4 % to the size and nothing measurable to an insert. By day instead of hour a question
-- for an hour read twice as much and saved 2.6 % of the size.
-- shard by cityHash64(eid)
-- retention by created_at
create table if not exists events (
    eid UUID,
    vid UUID,
    is_new Bool,
    sid UUID,
    uid UUID,
    oid UUID,
    org LowCardinality(String),
    tid UUID,
    auth_id UUID,
    device_id UUID,
    rid UUID,
    invoice_id UUID,
    ref UUID,
    origin LowCardinality(String),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    host LowCardinality(String),
    hhash LowCardinality(String),
    ename LowCardinality(String),
    etyp LowCardinality(String),
    outcome LowCardinality(String),
    score Nullable(Float64),
    sink LowCardinality(String),
    relation LowCardinality(String),
    url String codec(ZSTD(3)),
    last String codec(ZSTD(3)),
    app LowCardinality(String),
    rel LowCardinality(String),
    ptyp LowCardinality(String),
    ver Int32,
    vp_w Int64,
    vp_h Int64,
    duration Nullable(Int64),
    source LowCardinality(String),
    medium LowCardinality(String),
    campaign LowCardinality(String),
    content String,
    term LowCardinality(String),
    channel LowCardinality(String),
    click String,
    aff String,
    rcode LowCardinality(String),
    xid String,
    split LowCardinality(String),
    arm_id LowCardinality(String),
    mcid LowCardinality(String),
    user_agent String codec(ZSTD(3)),
    bhash String,
    browser LowCardinality(String),
    os LowCardinality(String),
    device LowCardinality(String),
    device_class LowCardinality(String),
    culture LowCardinality(String),
    ja4h String,
    verdict LowCardinality(String),
    reasons Array(String),
    ip String,
    iphash String,
    country LowCardinality(String),
    region LowCardinality(String),
    city String,
    zip String,
    lat Nullable(Float64),
    lon Nullable(Float64),
    tz LowCardinality(String),
    ehash String,
    chash String,
    nhash String,
    gaid String,
    idfa String,
    msid String,
    fbid String,
    cflags Nullable(Int64),
    gpc Bool,
    dnt Bool,
    params JSON(max_dynamic_paths = 0),
    targets JSON(max_dynamic_paths = 0),
    seq Nullable(Int64),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index eid eid type bloom_filter(0.01),
    index vid vid type bloom_filter(0.01),
    index sid sid type bloom_filter(0.01),
    index uid uid type bloom_filter(0.01),
    index tid tid type bloom_filter(0.01),
    index created_at created_at type minmax,
    index received_at received_at type minmax,
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(created_at)
order by (oid, toStartOfHour(created_at), vid, created_at, eid)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Input and rows that could not take the ordinary way.
-- shard by cityHash64(eid)
-- retention by received_at
create table if not exists quarantine (
    eid UUID,
    received_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    oid UUID,
    host LowCardinality(String),
    reason LowCardinality(String),
    message String codec(ZSTD(3)),
    length Int64,
    raw String codec(ZSTD(3)),
    sink LowCardinality(String),
    table_name LowCardinality(String),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(received_at)
order by (received_at, eid, sink, table_name, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Message threads and campaigns, as each event with a thread told them. The three tables of
-- messages have many columns and few values, so their parts stay in one file up to 1 GiB.
-- shard by cityHash64(tid)
-- retention by created_at
create table if not exists mthreads (
    tid UUID,
    oid UUID,
    org LowCardinality(String),
    uid UUID,
    vid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    ref UUID,
    app LowCardinality(String),
    rel LowCardinality(String),
    ptyp LowCardinality(String),
    ver Int32,
    etyp LowCardinality(String),
    ename LowCardinality(String),
    xid String,
    source LowCardinality(String),
    medium LowCardinality(String),
    campaign LowCardinality(String),
    term LowCardinality(String),
    aff String,
    mcert_id UUID,
    content_approver UUID,
    content_creator UUID,
    creator_id UUID,
    content_id UUID,
    owner UUID,
    updater UUID,
    alias String,
    xstatus LowCardinality(String),
    name String,
    post String codec(ZSTD(3)),
    auth_name String,
    svc LowCardinality(String),
    promo LowCardinality(String),
    provider LowCardinality(String),
    provider_campaign_id String,
    provider_account_id String,
    provider_status LowCardinality(String),
    funnel_stage LowCardinality(String),
    winner_variant String,
    content_intention LowCardinality(String),
    abz_algorithm LowCardinality(String),
    abz_reward_metric LowCardinality(String),
    abz_status LowCardinality(String),
    abz_model_type LowCardinality(String),
    abz_acquisition_function LowCardinality(String),
    campaign_id LowCardinality(String),
    campaign_phase LowCardinality(String),
    campaign_status LowCardinality(String),
    attribution_model LowCardinality(String),
    content_status LowCardinality(String),
    creator_compensation_model LowCardinality(String),
    creator_notes String codec(ZSTD(3)),
    ddata JSON(max_dynamic_paths = 0),
    mtempl JSON(max_dynamic_paths = 0),
    splits JSON(max_dynamic_paths = 0),
    provider_metrics JSON(max_dynamic_paths = 0),
    prefs JSON(max_dynamic_paths = 0),
    interest JSON(max_dynamic_paths = 0),
    perf JSON(max_dynamic_paths = 0),
    variants JSON(max_dynamic_paths = 0),
    variant_weights JSON(max_dynamic_paths = 0),
    audience_params JSON(max_dynamic_paths = 0),
    audience_metrics JSON(max_dynamic_paths = 0),
    content_assumptions JSON(max_dynamic_paths = 0),
    content_metrics JSON(max_dynamic_paths = 0),
    abz_params JSON(max_dynamic_paths = 0),
    abz_param_space JSON(max_dynamic_paths = 0),
    abz_model_params JSON(max_dynamic_paths = 0),
    attribution_params JSON(max_dynamic_paths = 0),
    regional_compliance JSON(max_dynamic_paths = 0),
    frequency_caps JSON(max_dynamic_paths = 0),
    cats Array(String),
    mtypes Array(String),
    fmtypes Array(String),
    cmtypes Array(String),
    cohorts Array(String),
    audience_segments Array(String),
    content_keywords Array(String),
    consent_types Array(String),
    admins Array(UUID),
    perms_ids Array(UUID),
    sent Array(UUID),
    outs Array(UUID),
    subs Array(UUID),
    pubs Array(UUID),
    vid_targets Array(UUID),
    content_history Array(UUID),
    content_editors Array(UUID),
    urgency Int32,
    ephemeral Int32,
    campaign_priority Int32,
    attribution_window Int32,
    data_retention Int32,
    content_version Int32,
    planned_impressions Int64,
    actual_impressions Int64,
    impression_goal Int64,
    total_conversions Int64,
    abz_sample_size Int64,
    abz_min_sample_size Int64,
    updatedms Int64,
    provider_cost Nullable(Float64),
    impression_budget Nullable(Float64),
    cost_per_impression Nullable(Float64),
    conversion_value Nullable(Float64),
    abz_reward_value Nullable(Float64),
    abz_exploration_rate Nullable(Float64),
    abz_learning_rate Nullable(Float64),
    abz_confidence_level Nullable(Float64),
    abz_winner_threshold Nullable(Float64),
    campaign_budget_allocation Nullable(Float64),
    attribution_weight Nullable(Float64),
    creator_compensation_rate Nullable(Float64),
    creator_compensation_cap Nullable(Float64),
    sys Bool,
    archived Bool,
    opens Bool,
    openp Bool,
    broadcast Bool,
    derive Bool,
    ftrack Bool,
    strack Bool,
    abz_enabled Bool,
    abz_auto_optimize Bool,
    abz_auto_stop Bool,
    abz_infinite_armed Bool,
    requires_consent Bool,
    creator_compensation Bool,
    abz_start_time Nullable(DateTime64(3, 'UTC')),
    content_approval_date Nullable(DateTime64(3, 'UTC')),
    deleted Nullable(DateTime64(3, 'UTC')),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(created_at)
order by (oid, tid, created_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_bytes_for_wide_part = 1073741824;

-- Messages.
-- shard by cityHash64(tid)
-- retention by created_at
create table if not exists mstore (
    tid UUID,
    mid UUID,
    pmid UUID,
    subject String codec(ZSTD(3)),
    msg String codec(ZSTD(3)),
    data String codec(ZSTD(3)),
    urgency Int32,
    sys Bool,
    broadcast Bool,
    mtempl String,
    repl JSON(max_dynamic_paths = 0),
    svc LowCardinality(String),
    qid UUID,
    rid UUID,
    relation LowCardinality(String),
    meta JSON(max_dynamic_paths = 0),
    planned Nullable(DateTime64(3, 'UTC')),
    scheduled Nullable(DateTime64(3, 'UTC')),
    started Nullable(DateTime64(3, 'UTC')),
    completed Nullable(DateTime64(3, 'UTC')),
    mtypes Array(String),
    users Array(UUID),
    deliveries Array(UUID),
    failures Array(UUID),
    xid String,
    split LowCardinality(String),
    perms_ids Array(UUID),
    deleted Nullable(DateTime64(3, 'UTC')),
    keep Bool,
    createdms Int64,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    oid UUID,
    org LowCardinality(String),
    owner UUID,
    uid UUID,
    vid UUID,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updater UUID,
    interest JSON(max_dynamic_paths = 0),
    perf JSON(max_dynamic_paths = 0),
    hide Nullable(DateTime64(3, 'UTC')),
    hidden Bool,
    funnel_stage LowCardinality(String),
    conversion_event_count Int64,
    scheduled_local_hour Int32,
    scheduled_local_dow Int32,
    recipient_timezone LowCardinality(String),
    utc_offset_minutes Int32,
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(created_at)
order by (oid, tid, mid, created_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_bytes_for_wide_part = 1073741824;

-- Messages on their way.
-- shard by cityHash64(tid)
-- retention by created_at
create table if not exists mtriage (
    tid UUID,
    mid UUID,
    pmid UUID,
    subject String codec(ZSTD(3)),
    msg String codec(ZSTD(3)),
    data String codec(ZSTD(3)),
    urgency Int32,
    sys Bool,
    broadcast Bool,
    mtempl String,
    repl JSON(max_dynamic_paths = 0),
    svc LowCardinality(String),
    qid UUID,
    rid UUID,
    relation LowCardinality(String),
    meta JSON(max_dynamic_paths = 0),
    scheduled Nullable(DateTime64(3, 'UTC')),
    started Nullable(DateTime64(3, 'UTC')),
    completed Nullable(DateTime64(3, 'UTC')),
    mtypes Array(String),
    users Array(UUID),
    deliveries Array(UUID),
    failures Array(UUID),
    xid String,
    split LowCardinality(String),
    perms_ids Array(UUID),
    deleted Nullable(DateTime64(3, 'UTC')),
    keep Bool,
    createdms Int64,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    oid UUID,
    org LowCardinality(String),
    owner UUID,
    uid UUID,
    vid UUID,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updater UUID,
    scheduled_local_hour Int32,
    scheduled_local_dow Int32,
    recipient_timezone LowCardinality(String),
    utc_offset_minutes Int32,
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(created_at)
order by (oid, tid, mid, created_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_bytes_for_wide_part = 1073741824;

-- One row for each impression that was scored or converted; impression_daily_totals adds them up.
-- shard by cityHash64(tid)
-- retention by day
create table if not exists impression_daily (
    oid UUID,
    org LowCardinality(String),
    tid UUID,
    campaign_id LowCardinality(String),
    day Date,
    variant_id LowCardinality(String),
    vid UUID,
    total_impressions Int64,
    anonymous_impressions Int64,
    identified_impressions Int64,
    unique_visitors Int64,
    conversions Int64,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
partition by toYYYYMM(day)
order by (oid, tid, day, variant_id, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Line items, the latest telling of each. Money is exact to four decimals.
-- shard by cityHash64(id)
-- retention by created_at
create table if not exists payments (
    id UUID,
    oid UUID,
    org LowCardinality(String),
    tid UUID,
    uid UUID,
    vid UUID,
    sid UUID,
    invid UUID,
    orid UUID,
    product_id UUID,
    product String,
    pcat LowCardinality(String),
    man String,
    model String,
    qty Nullable(Float64),
    duration Nullable(Int64),
    price Nullable(Decimal(18, 4)),
    discount Nullable(Decimal(18, 4)),
    revenue Nullable(Decimal(18, 4)),
    margin Nullable(Decimal(18, 4)),
    cost Nullable(Decimal(18, 4)),
    tax Nullable(Decimal(18, 4)),
    tax_rate Nullable(Float64),
    commission Nullable(Decimal(18, 4)),
    referral Nullable(Decimal(18, 4)),
    fees Nullable(Decimal(18, 4)),
    subtotal Nullable(Decimal(18, 4)),
    total Nullable(Decimal(18, 4)),
    payment Nullable(Decimal(18, 4)),
    currency LowCardinality(String),
    country LowCardinality(String),
    rcode LowCardinality(String),
    region LowCardinality(String),
    campaign_id LowCardinality(String),
    invoiced_at Nullable(DateTime64(3, 'UTC')),
    starts Nullable(DateTime64(3, 'UTC')),
    ends Nullable(DateTime64(3, 'UTC')),
    paid_at Nullable(DateTime64(3, 'UTC')),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    eid UUID,
    hhash LowCardinality(String),
    params JSON(max_dynamic_paths = 0),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index uid uid type bloom_filter(0.01),
    index vid vid type bloom_filter(0.01),
    index invid invid type bloom_filter(0.01),
    index orid orid type bloom_filter(0.01),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree(updated_at)
order by (oid, id)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- What was paid, one row for each payment and holder, the latest telling of each; ltv_totals adds
-- them up. By holder first: what is asked for is the value of one visitor or user.
-- shard by cityHash64(payment_id)
-- retention by created_at
create table if not exists ltv (
    hhash LowCardinality(String),
    id UUID,
    id_type LowCardinality(String),
    paid Decimal(18, 4),
    oid UUID,
    org LowCardinality(String),
    updater UUID,
    owner UUID,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    payment_id UUID,
    currency LowCardinality(String),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index payment_id payment_id type bloom_filter(0.01),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree(updated_at)
order by (id, id_type, hhash, payment_id)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- What a visitor agreed to; agreements_latest is in force.
-- shard by cityHash64(vid)
create table if not exists agreements (
    vid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    compliances JSON(max_dynamic_paths = 0),
    cflags Nullable(Int64),
    sid UUID,
    uid UUID,
    avid UUID,
    hhash LowCardinality(String),
    app LowCardinality(String),
    rel LowCardinality(String),
    url String codec(ZSTD(3)),
    ip String,
    iphash String,
    gaid String,
    idfa String,
    msid String,
    fbid String,
    country LowCardinality(String),
    region LowCardinality(String),
    culture LowCardinality(String),
    source LowCardinality(String),
    medium LowCardinality(String),
    campaign LowCardinality(String),
    term LowCardinality(String),
    ref UUID,
    rcode LowCardinality(String),
    aff String,
    browser String codec(ZSTD(3)),
    bhash String,
    device LowCardinality(String),
    os LowCardinality(String),
    tz LowCardinality(String),
    vp_w Int64,
    vp_h Int64,
    loc JSON(max_dynamic_paths = 0),
    lat Nullable(Float64),
    lon Nullable(Float64),
    zip String,
    owner UUID,
    oid UUID,
    org LowCardinality(String),
    params JSON(max_dynamic_paths = 0),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
order by (vid, created_at, updated_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- The history of agreements.
-- shard by cityHash64(vid)
-- retention by created_at
create table if not exists agreed (
    vid UUID,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    compliances JSON(max_dynamic_paths = 0),
    cflags Nullable(Int64),
    sid UUID,
    uid UUID,
    avid UUID,
    hhash LowCardinality(String),
    app LowCardinality(String),
    rel LowCardinality(String),
    url String codec(ZSTD(3)),
    ip String,
    iphash String,
    gaid String,
    idfa String,
    msid String,
    fbid String,
    country LowCardinality(String),
    region LowCardinality(String),
    culture LowCardinality(String),
    source LowCardinality(String),
    medium LowCardinality(String),
    campaign LowCardinality(String),
    term LowCardinality(String),
    ref UUID,
    rcode LowCardinality(String),
    aff String,
    browser String codec(ZSTD(3)),
    bhash String,
    device LowCardinality(String),
    os LowCardinality(String),
    tz LowCardinality(String),
    vp_w Int64,
    vp_h Int64,
    loc JSON(max_dynamic_paths = 0),
    lat Nullable(Float64),
    lon Nullable(Float64),
    zip String,
    owner UUID,
    oid UUID,
    org LowCardinality(String),
    params JSON(max_dynamic_paths = 0),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
order by (vid, created_at, updated_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Short links, the last change of each.
-- shard by cityHash64(urlfrom)
create table if not exists redirects (
    hhash LowCardinality(String),
    urlfrom String codec(ZSTD(3)),
    urlto String codec(ZSTD(3)),
    oid UUID,
    org LowCardinality(String),
    updater UUID,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree(updated_at)
order by urlfrom
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Every change of a short link.
-- shard by cityHash64(urlfrom)
create table if not exists redirect_history (
    urlfrom String codec(ZSTD(3)),
    hostfrom String,
    slugfrom String,
    urlto String codec(ZSTD(3)),
    hostto String,
    pathto String,
    searchto String,
    oid UUID,
    org LowCardinality(String),
    updater UUID,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    ingest_node LowCardinality(String),
    ingest_seq Int64 codec(Delta, ZSTD(1)),
    index ingest_seq ingest_seq type minmax
)
engine = ReplacingMergeTree
order by (hostfrom, urlfrom, updated_at, ingest_node, ingest_seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Log lines of other services.
-- shard by cityHash64(id)
-- retention by created_at
create table if not exists logs (
    id UUID,
    oid UUID,
    org LowCardinality(String),
    owner UUID,
    ldate Date,
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    ltime DateTime64(9, 'UTC'),
    topic LowCardinality(String),
    name String,
    host LowCardinality(String),
    hostname LowCardinality(String),
    ip String,
    iphash String,
    level Int32,
    msg String codec(ZSTD(3)),
    params JSON(max_dynamic_paths = 0)
)
engine = ReplacingMergeTree
partition by toYYYYMM(created_at)
order by (created_at, id)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Notes of other services, the latest of each.
-- shard by cityHash64(id)
create table if not exists updates (
    id String,
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    msg String codec(ZSTD(3))
)
engine = ReplacingMergeTree(updated_at)
order by id
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Counts told by other services, and those that derive; counters_totals adds them up.
-- shard by cityHash64(id)
create table if not exists counters (
    id String,
    total UInt64,
    date Date
)
engine = SummingMergeTree(total)
partition by toYYYYMM(date)
order by (id, date)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Who may administer, the latest of each. Without a password an account is no more.
-- shard by cityHash64(uid)
create table if not exists accounts (
    uid UUID,
    pwd String,
    owner UUID,
    ip String,
    msg String codec(ZSTD(3)),
    creds JSON(max_dynamic_paths = 0),
    expires Nullable(DateTime64(3, 'UTC')),
    created_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(updated_at)
order by uid
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Which store this is; another one starts over from the oldest record of the journal.
-- shard by cityHash64(id)
create table if not exists store_identity (
    id UUID,
    created_at DateTime64(3, 'UTC')
)
engine = ReplacingMergeTree
order by (created_at, id);

-- Organisations, as other programs keep them.
-- shard by cityHash64(oid)
create table if not exists orgs (
    oid UUID,
    org LowCardinality(String),
    ddata JSON,
    updated_at DateTime64(3, 'UTC')
)
engine = ReplacingMergeTree(updated_at)
order by (oid, org)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Regulations that stand over the shipped ones.
-- shard by cityHash64(regulation)
create table if not exists jurisdictions (
    regulation LowCardinality(String),
    compliance LowCardinality(String),
    seq UInt32,
    rules JSON(max_dynamic_paths = 0),
    locs JSON(max_dynamic_paths = 0),
    updated_at DateTime64(3, 'UTC') codec(Delta, ZSTD(1))
)
engine = ReplacingMergeTree(updated_at)
order by (regulation, compliance, seq)
settings
    non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1;
