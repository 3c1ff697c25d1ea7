//! The derived views, against data small enough to count by hand.

use duckdb::Connection;
use serde_json::{Value, json};

use crate::backends::duckdb::{migrate, query};

const A: &str = "00000000-0000-0000-0000-00000000000a";
const B: &str = "00000000-0000-0000-0000-00000000000b";
const U: &str = "00000000-0000-0000-0000-0000000000ff";

fn fresh() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection, migrate::MIGRATIONS).unwrap();
    connection
}

/// Two visitors and a server, on two days; `v` is short for the end of the visitor's id.
fn small() -> Connection {
    let connection = fresh();
    connection
        .execute_batch(&format!(
            "create temp table told (
                seq bigint, origin varchar, v varchar, moment timestamp, ip varchar, url varchar,
                last varchar, outcome varchar, is_new boolean, uid uuid, ref uuid, rcode varchar
            );
            insert into told values
                (1, 'client', 'a', '2026-02-01 10:00', '1', '/x', '/s', null, true, null, null, null),
                (2, 'client', 'a', '2026-02-01 10:05', '1', '/y', '/x', 'buy', false, '{U}', null, 'r1'),
                (3, 'client', 'b', '2026-02-01 23:59', '2', '/x', null, null, true, null, '{A}', 'r1'),
                (4, 'server', 'b', '2026-02-02 00:00', '2', '/x', '/z', 'buy', true, '{U}', '{A}', 'r2'),
                (5, 'client', 'a', '2026-02-02 09:00', '3', '/x', null, null, false, '{U}', '{B}', 'r3'),
                (6, 'client', null, '2026-02-02 09:01', null, null, null, null, false, null, null, null);
            insert into events (
                eid, ingest_node, ingest_seq, origin, vid, oid, created_at, received_at, ip, iphash,
                url, last, outcome, sink, is_new, uid, ref, rcode, host, hhash, bhash, browser, sid,
                ehash, chash, nhash, lat, lon, ename
            )
            select
                uuid(), 'n', seq, origin, ('00000000-0000-0000-0000-00000000000' || v)::uuid,
                '{U}', moment, moment + interval 1 minute, ip, 'h' || ip, url, last, outcome, 'goal',
                is_new, uid, ref, rcode, 'example.org', 'hh', 'bh', 'Firefox',
                ('00000000-0000-0000-0000-00000000000' || seq)::uuid,
                if(v = 'a', 'e', null), if(v = 'a', 'c', null), if(v = 'b', 'n', null),
                if(v = 'a', 1.5, null), if(v = 'a', 2.5, null), 'e' || seq
            from told",
        ))
        .unwrap();
    connection
}

#[track_caller]
fn check(connection: &Connection, sql: &str, expect: Value) {
    let found = query::select(connection, sql, (), 1000).unwrap();
    assert_eq!(json!(found.rows), expect, "{sql}");
}

#[test]
fn counters_add_up_by_day() {
    let small = small();
    for (sql, expect) in [
        // Addresses of servers are counted too.
        (
            "select hhash, ip, total, date from ips order by all",
            json!([
                ["hh", "1", 2, "2026-02-01"],
                ["hh", "2", 1, "2026-02-01"],
                ["hh", "2", 1, "2026-02-02"],
                ["hh", "3", 1, "2026-02-02"]
            ]),
        ),
        (
            "select url, total, date from hits order by all",
            json!([["/x", 1, "2026-02-02"], ["/x", 2, "2026-02-01"], ["/y", 1, "2026-02-01"]]),
        ),
        // By our own clock, a minute later: the event of 23:59 is of the next day.
        (
            "select ip, day, total from dailies order by all",
            json!([["1", "2026-02-01", 2], ["2", "2026-02-02", 1], ["3", "2026-02-02", 1]]),
        ),
        (
            "select outcome, sink, created, url, total from outcomes",
            json!([["buy", "goal", "2026-02-01", "/y", 1]]),
        ),
        ("select url, total from referrers order by all", json!([["/s", 1], ["/x", 1]])),
        (
            "select bhash, browser, total, date from browsers order by date",
            json!([["bh", "Firefox", 3, "2026-02-01"], ["bh", "Firefox", 2, "2026-02-02"]]),
        ),
        (
            "select vid, total, date from reqs order by all",
            json!([
                [A, 1, "2026-02-02"],
                [A, 2, "2026-02-01"],
                [B, 1, "2026-02-01"],
                [null, 1, "2026-02-02"]
            ]),
        ),
        ("select id, total from sfpla.counters", json!([["vids_created", 2]])),
    ] {
        check(&small, sql, expect);
    }
}

#[test]
fn who_was_seen_with_what_is_kept_by_key() {
    let small = small();
    let sid = |seq: u32| format!("00000000-0000-0000-0000-00000000000{seq}");
    for (sql, expect) in [
        (
            "select hhash, hostname, created_at from hosts",
            json!([["hh", "example.org", "2026-02-02T09:01:00.000Z"]]),
        ),
        ("select uid, vid, sid from userhosts", json!([[U, A, sid(5)]])),
        ("select uhash, vid, sid from usernames", json!([["n", B, sid(3)]])),
        ("select ehash, vid, sid from emails", json!([["e", A, sid(5)]])),
        ("select chash, vid, sid from cells", json!([["c", A, sid(5)]])),
        (
            "select ip, url, updated_at from routed order by ip",
            json!([
                ["1", "/y", "2026-02-01T10:05:00.000Z"],
                ["2", "/x", "2026-02-02T00:00:00.000Z"],
                ["3", "/x", "2026-02-02T09:00:00.000Z"]
            ]),
        ),
        (
            "select vid, iphash, ip, sid from nodes order by all",
            json!([[A, "h1", "1", sid(1)], [A, "h3", "3", sid(5)], [B, "h2", "2", sid(3)]]),
        ),
        ("select vid, lat, lon, uid, sid from locations", json!([[A, 1.5, 2.5, null, sid(1)]])),
        ("select vid, uid, sid from aliases", json!([[A, U, sid(2)]])),
        ("select vid, ref from referrals order by vid", json!([[A, B], [B, A]])),
        ("select vid, rcode from referred order by vid", json!([[A, "r1"], [B, "r1"]])),
        (
            "select vid, ename, url from visitors order by vid",
            json!([[A, "e1", "/x"], [B, "e3", "/x"]]),
        ),
        ("select vid, ename from visitors_latest order by vid", json!([[A, "e5"], [B, "e3"]])),
    ] {
        check(&small, sql, expect);
    }
}

#[test]
fn recent_means_seven_days() {
    let fresh = fresh();
    fresh
        .execute_batch(
            "insert into events (ename, created_at) values
                ('new', make_timestamp(epoch_us(now())) - interval 6 day - interval 23 hour),
                ('old', make_timestamp(epoch_us(now())) - interval 7 day - interval 1 hour)",
        )
        .unwrap();
    check(&fresh, "select ename from events_recent", json!([["new"]]));
}

/// Client events of visitor A at these seconds after midnight.
fn at_seconds(seconds: &str) -> Connection {
    let fresh = fresh();
    fresh
        .execute_batch(&format!(
            "insert into events (eid, origin, vid, oid, ingest_node, ingest_seq, created_at, url)
             select uuid(), 'client', '{A}', null, 'n', row_number() over (),
                timestamp '2026-02-01' + to_seconds(s), '/' || s
             from (select unnest({seconds}) as s)"
        ))
        .unwrap();
    fresh
}

#[test]
fn half_an_hour_of_silence_ends_a_session_and_a_second_less_does_not() {
    check(
        &at_seconds("[0, 600, 2399, 4199]"),
        "select session, events, length_ms, url, exit_url from sessions order by session",
        json!([[1, 3, 2_399_000, "/0", "/2399"], [2, 1, 0, "/4199", "/4199"]]),
    );
}

#[test]
fn a_day_ends_a_session_counted_from_its_own_first_event() {
    // Every 22 minutes: the second session begins 1,452 minutes after the first, and the third
    // again 24 hours after that, not 48 hours after the first.
    check(
        &at_seconds("[i * 1320 for i in range(141)]"),
        "select session, events, url from sessions order by session",
        json!([[1, 66, "/0"], [2, 66, "/87120"], [3, 9, "/174240"]]),
    );
}

#[test]
fn events_of_one_moment_are_of_one_session() {
    check(
        &at_seconds("[0, 0, 0, 5000, 5000]"),
        "select session, events from sessions order by session",
        json!([[1, 3], [2, 2]]),
    );
}

#[test]
fn sessions_belong_to_a_visitor_of_an_organisation_and_to_clients() {
    let small = small();
    check(
        &small,
        "select vid, session, ename, events, ended_at from sessions order by vid, session",
        json!([
            [A, 1, "e1", 2, "2026-02-01T10:05:00.000Z"],
            [A, 2, "e5", 1, "2026-02-02T09:00:00.000Z"],
            [B, 1, "e3", 1, "2026-02-01T23:59:00.000Z"]
        ]),
    );
}

#[test]
fn tags_are_counted_by_visitor_and_campaign() {
    let fresh = fresh();
    fresh
        .execute_batch(&format!(
            "insert into events (
                vid, oid, org, uid, ingest_node, ingest_seq, created_at, campaign, content, country,
                params
            ) values
                ('{A}', '{U}', 'o', null, 'n', 1, '2026-02-01', 'c1', null, 'DE',
                    '{{\"audience\": [\"ceo\", \" dev \"]}}'),
                ('{A}', '{U}', 'o', null, 'n', 2, '2026-02-02', 'c1', 'sport,tech', 'FR',
                    '{{\"audience_tags\": \"ceo, ,\"}}'),
                ('{A}', '{U}', 'o', null, 'n', 3, '2026-02-03', null, null, null,
                    '{{\"tags\": [\"tech\"]}}'),
                ('{A}', '{U}', 'o', null, 'n', 4, '2026-02-04', 'c9', null, 'US', '{{\"tags\": 7}}'),
                ('{A}', null, 'o', null, 'n', 5, '2026-02-05', 'c1', 'x', 'US', '{{}}')"
        ))
        .unwrap();
    check(
        &fresh,
        "select audience_tags, audience_counts, content_tags, content_counts, interests,
            interest_counts, campaign_sources, total_interactions, unique_campaigns,
            first_seen::date, last_updated::date, last_country
         from visitor_interests",
        json!([[
            ["ceo", "dev"],
            {"ceo": 2, "dev": 1},
            ["sport", "tech"],
            {"sport": 1, "tech": 2},
            ["ceo", "dev", "sport", "tech"],
            {"ceo": 2, "dev": 1, "sport": 1, "tech": 2},
            {"c1": {"audience": ["ceo", "dev"], "content": ["sport", "tech"]}},
            3,
            1,
            "2026-02-01",
            "2026-02-03",
            "FR"
        ]]),
    );
}

#[test]
fn facts_that_are_added_up_have_their_sums_in_sfpla() {
    let fresh = fresh();
    fresh
        .execute_batch(&format!(
            "insert into ltv (hhash, id, id_type, paid, updated_at) values
                ('h', '{U}', 'uid', 0.1, '2026-01-01'), ('h', '{U}', 'uid', 0.2, '2026-01-02');
             insert into impression_daily
                (oid, tid, day, vid, total_impressions, anonymous_impressions,
                 identified_impressions, conversions)
             values
                ('{U}', '{U}', '2026-01-01', '{A}', 1, 1, 0, 0),
                ('{U}', '{U}', '2026-01-01', '{A}', 1, 1, 0, 1),
                ('{U}', '{U}', '2026-01-01', '{B}', 1, 0, 1, 0);
             insert into quarantine (eid, reason, sink, table_name, received_at) values
                ('{A}', 'refused', 's', 'events', '2026-01-01'),
                ('{A}', 'refused', 's', 'events', '2026-01-02'),
                ('{A}', 'refused', 't', 'events', '2026-01-02');
             insert into counters values ('jobs', 2, '2026-01-01'), ('jobs', 3, '2026-01-02')"
        ))
        .unwrap();
    for (sql, expect) in [
        ("select id_type, paid from sfpla.ltv", json!([["uid", 0.3]])),
        (
            "select total_impressions, anonymous_impressions, identified_impressions,
                unique_visitors, conversions
             from sfpla.impression_daily",
            json!([[3, 2, 1, 2, 1]]),
        ),
        ("select count(*) from sfpla.quarantine", json!([[2]])),
        ("select id, total, date from sfpla.counters", json!([["jobs", 5, "2026-01-02"]])),
    ] {
        check(&fresh, sql, expect);
    }
}

#[test]
fn everything_in_main_stands_in_sfpla_too() {
    let fresh = fresh();
    check(
        &fresh,
        "select table_name from information_schema.tables where table_schema = 'main'
         except
         select table_name from information_schema.tables where table_schema = 'sfpla'",
        json!([]),
    );
    check(&fresh, "select count() from sfpla.events", json!([[0]]));
}
