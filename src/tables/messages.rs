//! `mthreads`, `mstore`, `mtriage`, `impression_daily`: what an event with a thread says about
//! campaigns and messages.
//!
//! The four tables are wide and mostly empty: their columns are read from [`Thread::fields`] under
//! the column's own name, but for what the event already knows as a typed field. A value of the
//! wrong type is turned into the column's type where nothing is lost and is absent otherwise; as
//! sent it stays in `params` of `events`. The file is longer than others because it is a list.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Cell, Column, Kind, Table, maybe};
use crate::event::{Body, Event, Thread, Track};

/// Threads and campaigns.
pub(super) static MTHREADS: Table<Track> = Table {
    name: "mthreads",
    kind: Kind::Append,
    part: threaded,
    columns: &[
        Column { name: "tid", cell: |_, t| thread_id(t) },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "uid", cell: |e, _| maybe(e.who.uid) },
        Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "updated_at", cell: |e, _| e.created_at.into() },
        Column { name: "ref", cell: |e, _| maybe(e.campaign.referral) },
        Column { name: "app", cell: |e, _| maybe(e.page.app.as_ref()) },
        Column { name: "rel", cell: |e, _| maybe(e.page.rel.as_ref()) },
        Column { name: "ptyp", cell: |e, _| maybe(e.page.ptyp.as_ref()) },
        Column { name: "ver", cell: |e, _| maybe(e.page.ver) },
        Column { name: "etyp", cell: |_, t| maybe(t.etyp.as_ref()) },
        Column { name: "ename", cell: |_, t| maybe(t.ename.as_ref()) },
        Column { name: "xid", cell: |e, _| maybe(e.campaign.xid.as_ref()) },
        Column { name: "source", cell: |e, _| maybe(e.campaign.source.as_ref()) },
        Column { name: "medium", cell: |e, _| maybe(e.campaign.medium.as_ref()) },
        Column { name: "campaign", cell: |e, _| maybe(e.campaign.campaign.as_ref()) },
        Column { name: "term", cell: |e, _| maybe(e.campaign.term.as_ref()) },
        Column { name: "aff", cell: |e, _| maybe(e.campaign.aff.as_ref()) },
        Column { name: "mcert_id", cell: |_, t| uuid(t, "mcert_id") },
        Column { name: "content_approver", cell: |_, t| uuid(t, "content_approver") },
        Column { name: "content_creator", cell: |_, t| uuid(t, "content_creator") },
        Column { name: "creator_id", cell: |_, t| uuid(t, "creator_id") },
        Column { name: "content_id", cell: |_, t| uuid(t, "content_id") },
        Column { name: "owner", cell: |_, t| uuid(t, "owner") },
        Column { name: "updater", cell: |_, t| uuid(t, "updater") },
        Column { name: "alias", cell: |_, t| text(t, "alias") },
        Column { name: "xstatus", cell: |_, t| text(t, "xstatus") },
        Column { name: "name", cell: |_, t| text(t, "name") },
        Column { name: "post", cell: |_, t| text(t, "post") },
        Column { name: "auth_name", cell: |_, t| text(t, "auth_name") },
        Column { name: "svc", cell: |_, t| text(t, "svc") },
        Column { name: "promo", cell: |_, t| text(t, "promo") },
        Column { name: "provider", cell: |_, t| text(t, "provider") },
        Column { name: "provider_campaign_id", cell: |_, t| text(t, "provider_campaign_id") },
        Column { name: "provider_account_id", cell: |_, t| text(t, "provider_account_id") },
        Column { name: "provider_status", cell: |_, t| text(t, "provider_status") },
        Column { name: "funnel_stage", cell: |_, t| text(t, "funnel_stage") },
        Column { name: "winner_variant", cell: |_, t| text(t, "winner_variant") },
        Column { name: "content_intention", cell: |_, t| text(t, "content_intention") },
        Column { name: "abz_algorithm", cell: |_, t| text(t, "abz_algorithm") },
        Column { name: "abz_reward_metric", cell: |_, t| text(t, "abz_reward_metric") },
        Column { name: "abz_status", cell: |_, t| text(t, "abz_status") },
        Column { name: "abz_model_type", cell: |_, t| text(t, "abz_model_type") },
        Column {
            name: "abz_acquisition_function",
            cell: |_, t| text(t, "abz_acquisition_function"),
        },
        Column { name: "campaign_id", cell: |_, t| text(t, "campaign_id") },
        Column { name: "campaign_phase", cell: |_, t| text(t, "campaign_phase") },
        Column { name: "campaign_status", cell: |_, t| text(t, "campaign_status") },
        Column { name: "attribution_model", cell: |_, t| text(t, "attribution_model") },
        Column { name: "content_status", cell: |_, t| text(t, "content_status") },
        Column {
            name: "creator_compensation_model",
            cell: |_, t| text(t, "creator_compensation_model"),
        },
        Column { name: "creator_notes", cell: |_, t| text(t, "creator_notes") },
        Column { name: "ddata", cell: |_, t| json(t, "ddata") },
        Column { name: "mtempl", cell: |_, t| json(t, "mtempl") },
        Column { name: "splits", cell: |_, t| json(t, "splits") },
        Column { name: "provider_metrics", cell: |_, t| json(t, "provider_metrics") },
        Column { name: "prefs", cell: |_, t| json(t, "prefs") },
        Column { name: "interest", cell: |_, t| json(t, "interest") },
        Column { name: "perf", cell: |_, t| json(t, "perf") },
        Column { name: "variants", cell: |_, t| json(t, "variants") },
        Column { name: "variant_weights", cell: |_, t| json(t, "variant_weights") },
        Column { name: "audience_params", cell: |_, t| json(t, "audience_params") },
        Column { name: "audience_metrics", cell: |_, t| json(t, "audience_metrics") },
        Column { name: "content_assumptions", cell: |_, t| json(t, "content_assumptions") },
        Column { name: "content_metrics", cell: |_, t| json(t, "content_metrics") },
        Column { name: "abz_params", cell: |_, t| json(t, "abz_params") },
        Column { name: "abz_param_space", cell: |_, t| json(t, "abz_param_space") },
        Column { name: "abz_model_params", cell: |_, t| json(t, "abz_model_params") },
        Column { name: "attribution_params", cell: |_, t| json(t, "attribution_params") },
        Column { name: "regional_compliance", cell: |_, t| json(t, "regional_compliance") },
        Column { name: "frequency_caps", cell: |_, t| json(t, "frequency_caps") },
        Column { name: "cats", cell: |_, t| texts(t, "cats") },
        Column { name: "mtypes", cell: |_, t| texts(t, "mtypes") },
        Column { name: "fmtypes", cell: |_, t| texts(t, "fmtypes") },
        Column { name: "cmtypes", cell: |_, t| texts(t, "cmtypes") },
        Column { name: "cohorts", cell: |_, t| texts(t, "cohorts") },
        Column { name: "audience_segments", cell: |_, t| texts(t, "audience_segments") },
        Column { name: "content_keywords", cell: |_, t| texts(t, "content_keywords") },
        Column { name: "consent_types", cell: |_, t| texts(t, "consent_types") },
        Column { name: "admins", cell: |_, t| uuids(t, "admins") },
        Column { name: "perms_ids", cell: |_, t| uuids(t, "perms_ids") },
        Column { name: "sent", cell: |_, t| uuids(t, "sent") },
        Column { name: "outs", cell: |_, t| uuids(t, "outs") },
        Column { name: "subs", cell: |_, t| uuids(t, "subs") },
        Column { name: "pubs", cell: |_, t| uuids(t, "pubs") },
        Column { name: "vid_targets", cell: |_, t| uuids(t, "vid_targets") },
        Column { name: "content_history", cell: |_, t| uuids(t, "content_history") },
        Column { name: "content_editors", cell: |_, t| uuids(t, "content_editors") },
        Column { name: "urgency", cell: |_, t| int(t, "urgency") },
        Column { name: "ephemeral", cell: |_, t| int(t, "ephemeral") },
        Column { name: "campaign_priority", cell: |_, t| int(t, "campaign_priority") },
        Column { name: "attribution_window", cell: |_, t| int(t, "attribution_window") },
        Column { name: "data_retention", cell: |_, t| int(t, "data_retention") },
        Column { name: "content_version", cell: |_, t| int(t, "content_version") },
        Column { name: "planned_impressions", cell: |_, t| long(t, "planned_impressions") },
        Column { name: "actual_impressions", cell: |_, t| long(t, "actual_impressions") },
        Column { name: "impression_goal", cell: |_, t| long(t, "impression_goal") },
        Column { name: "total_conversions", cell: |_, t| long(t, "total_conversions") },
        Column { name: "abz_sample_size", cell: |_, t| long(t, "abz_sample_size") },
        Column { name: "abz_min_sample_size", cell: |_, t| long(t, "abz_min_sample_size") },
        Column { name: "updatedms", cell: |_, t| long(t, "updatedms") },
        Column { name: "provider_cost", cell: |_, t| float(t, "provider_cost") },
        Column { name: "impression_budget", cell: |_, t| float(t, "impression_budget") },
        Column { name: "cost_per_impression", cell: |_, t| float(t, "cost_per_impression") },
        Column { name: "conversion_value", cell: |_, t| float(t, "conversion_value") },
        Column { name: "abz_reward_value", cell: |_, t| float(t, "abz_reward_value") },
        Column { name: "abz_exploration_rate", cell: |_, t| float(t, "abz_exploration_rate") },
        Column { name: "abz_learning_rate", cell: |_, t| float(t, "abz_learning_rate") },
        Column { name: "abz_confidence_level", cell: |_, t| float(t, "abz_confidence_level") },
        Column { name: "abz_winner_threshold", cell: |_, t| float(t, "abz_winner_threshold") },
        Column {
            name: "campaign_budget_allocation",
            cell: |_, t| float(t, "campaign_budget_allocation"),
        },
        Column { name: "attribution_weight", cell: |_, t| float(t, "attribution_weight") },
        Column {
            name: "creator_compensation_rate",
            cell: |_, t| float(t, "creator_compensation_rate"),
        },
        Column {
            name: "creator_compensation_cap",
            cell: |_, t| float(t, "creator_compensation_cap"),
        },
        Column { name: "sys", cell: |_, t| truth(t, "sys") },
        Column { name: "archived", cell: |_, t| truth(t, "archived") },
        Column { name: "opens", cell: |_, t| truth(t, "opens") },
        Column { name: "openp", cell: |_, t| truth(t, "openp") },
        Column { name: "broadcast", cell: |_, t| truth(t, "broadcast") },
        Column { name: "derive", cell: |_, t| truth(t, "derive") },
        Column { name: "ftrack", cell: |_, t| truth(t, "ftrack") },
        Column { name: "strack", cell: |_, t| truth(t, "strack") },
        Column { name: "abz_enabled", cell: |_, t| truth(t, "abz_enabled") },
        Column { name: "abz_auto_optimize", cell: |_, t| truth(t, "abz_auto_optimize") },
        Column { name: "abz_auto_stop", cell: |_, t| truth(t, "abz_auto_stop") },
        Column { name: "abz_infinite_armed", cell: |_, t| truth(t, "abz_infinite_armed") },
        Column { name: "requires_consent", cell: |_, t| truth(t, "requires_consent") },
        Column { name: "creator_compensation", cell: |_, t| truth(t, "creator_compensation") },
        Column { name: "abz_start_time", cell: |_, t| time(t, "abz_start_time") },
        Column { name: "content_approval_date", cell: |_, t| time(t, "content_approval_date") },
        Column { name: "deleted", cell: |_, t| time(t, "deleted") },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

/// Messages.
pub(super) static MSTORE: Table<Track> = Table {
    name: "mstore",
    kind: Kind::Append,
    part: threaded,
    columns: &[
        Column { name: "tid", cell: |_, t| thread_id(t) },
        Column { name: "mid", cell: |_, t| message_id(t) },
        Column { name: "pmid", cell: |_, t| uuid(t, "pmid") },
        Column { name: "subject", cell: |_, t| text(t, "subject") },
        Column { name: "msg", cell: |_, t| text(t, "msg") },
        Column { name: "data", cell: |_, t| text(t, "data") },
        Column { name: "urgency", cell: |_, t| int(t, "urgency") },
        Column { name: "sys", cell: |_, t| truth(t, "sys") },
        Column { name: "broadcast", cell: |_, t| truth(t, "broadcast") },
        Column { name: "mtempl", cell: |_, t| text(t, "mtempl") },
        Column { name: "repl", cell: |_, t| json(t, "repl") },
        Column { name: "svc", cell: |_, t| text(t, "svc") },
        Column { name: "qid", cell: |_, t| uuid(t, "qid") },
        Column { name: "rid", cell: |_, t| maybe(t.rid) },
        Column { name: "relation", cell: |_, t| maybe(t.relation.as_ref()) },
        Column { name: "meta", cell: |_, t| json(t, "meta") },
        Column { name: "planned", cell: |_, t| time(t, "planned") },
        Column { name: "scheduled", cell: |_, t| time(t, "scheduled") },
        Column { name: "started", cell: |_, t| time(t, "started") },
        Column { name: "completed", cell: |_, t| time(t, "completed") },
        Column { name: "mtypes", cell: |_, t| texts(t, "mtypes") },
        Column { name: "users", cell: |_, t| uuids(t, "users") },
        Column { name: "deliveries", cell: |_, t| uuids(t, "deliveries") },
        Column { name: "failures", cell: |_, t| uuids(t, "failures") },
        Column { name: "xid", cell: |e, _| maybe(e.campaign.xid.as_ref()) },
        Column { name: "split", cell: |e, _| maybe(e.campaign.split.as_ref()) },
        Column { name: "perms_ids", cell: |_, t| uuids(t, "perms_ids") },
        Column { name: "deleted", cell: |_, t| time(t, "deleted") },
        Column { name: "keep", cell: |_, t| truth(t, "keep") },
        Column {
            name: "createdms",
            cell: |e, t| or(long(t, "createdms"), e.created_at.timestamp_millis()),
        },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "owner", cell: |_, t| uuid(t, "owner") },
        Column { name: "uid", cell: |e, _| maybe(e.who.uid) },
        Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
        Column { name: "updated_at", cell: |e, _| e.created_at.into() },
        Column { name: "updater", cell: |_, t| uuid(t, "updater") },
        Column { name: "interest", cell: |_, t| json(t, "interest") },
        Column { name: "perf", cell: |_, t| json(t, "perf") },
        Column { name: "hide", cell: |_, t| time(t, "hide") },
        Column { name: "hidden", cell: |_, t| truth(t, "hidden") },
        Column { name: "funnel_stage", cell: |_, t| text(t, "funnel_stage") },
        Column { name: "conversion_event_count", cell: |_, t| long(t, "conversion_event_count") },
        Column {
            name: "scheduled_local_hour",
            cell: |_, t| or(int(t, "scheduled_local_hour"), -1_i64),
        },
        Column {
            name: "scheduled_local_dow",
            cell: |_, t| or(int(t, "scheduled_local_dow"), -1_i64),
        },
        Column { name: "recipient_timezone", cell: |_, t| text(t, "recipient_timezone") },
        Column { name: "utc_offset_minutes", cell: |_, t| or(int(t, "utc_offset_minutes"), 0_i64) },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

/// Messages on their way: urgent and kept unless the event says otherwise.
pub(super) static MTRIAGE: Table<Track> = Table {
    name: "mtriage",
    kind: Kind::Append,
    part: threaded,
    columns: &[
        Column { name: "tid", cell: |_, t| thread_id(t) },
        Column { name: "mid", cell: |_, t| message_id(t) },
        Column { name: "pmid", cell: |_, t| uuid(t, "pmid") },
        Column { name: "subject", cell: |_, t| text(t, "subject") },
        Column { name: "msg", cell: |_, t| text(t, "msg") },
        Column { name: "data", cell: |_, t| text(t, "data") },
        Column { name: "urgency", cell: |_, t| or(int(t, "urgency"), 8_i64) },
        Column { name: "sys", cell: |_, t| truth(t, "sys") },
        Column { name: "broadcast", cell: |_, t| truth(t, "broadcast") },
        Column { name: "mtempl", cell: |_, t| text(t, "mtempl") },
        Column { name: "repl", cell: |_, t| json(t, "repl") },
        Column { name: "svc", cell: |_, t| text(t, "svc") },
        Column { name: "qid", cell: |_, t| uuid(t, "qid") },
        Column { name: "rid", cell: |_, t| maybe(t.rid) },
        Column { name: "relation", cell: |_, t| maybe(t.relation.as_ref()) },
        Column { name: "meta", cell: |_, t| json(t, "meta") },
        Column { name: "scheduled", cell: |_, t| time(t, "scheduled") },
        Column { name: "started", cell: |_, t| time(t, "started") },
        Column { name: "completed", cell: |_, t| time(t, "completed") },
        Column { name: "mtypes", cell: |_, t| texts(t, "mtypes") },
        Column { name: "users", cell: |_, t| uuids(t, "users") },
        Column { name: "deliveries", cell: |_, t| uuids(t, "deliveries") },
        Column { name: "failures", cell: |_, t| uuids(t, "failures") },
        Column { name: "xid", cell: |e, _| maybe(e.campaign.xid.as_ref()) },
        Column { name: "split", cell: |e, _| maybe(e.campaign.split.as_ref()) },
        Column { name: "perms_ids", cell: |_, t| uuids(t, "perms_ids") },
        Column { name: "deleted", cell: |_, t| time(t, "deleted") },
        Column { name: "keep", cell: |_, t| or(truth(t, "keep"), true) },
        Column {
            name: "createdms",
            cell: |e, t| or(long(t, "createdms"), e.created_at.timestamp_millis()),
        },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "owner", cell: |_, t| uuid(t, "owner") },
        Column { name: "uid", cell: |e, _| maybe(e.who.uid) },
        Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
        Column { name: "updated_at", cell: |e, _| e.created_at.into() },
        Column { name: "updater", cell: |_, t| uuid(t, "updater") },
        Column {
            name: "scheduled_local_hour",
            cell: |_, t| or(int(t, "scheduled_local_hour"), -1_i64),
        },
        Column {
            name: "scheduled_local_dow",
            cell: |_, t| or(int(t, "scheduled_local_dow"), -1_i64),
        },
        Column { name: "recipient_timezone", cell: |_, t| text(t, "recipient_timezone") },
        Column { name: "utc_offset_minutes", cell: |_, t| or(int(t, "utc_offset_minutes"), 0_i64) },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

/// Impressions that were scored or converted, one each.
pub(super) static IMPRESSION_DAILY: Table<Track> = Table {
    name: "impression_daily",
    kind: Kind::Counter,
    part: impression,
    columns: &[
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "tid", cell: |_, t| thread_id(t) },
        Column { name: "campaign_id", cell: |_, t| text(t, "campaign_id") },
        Column { name: "day", cell: |e, _| Cell::Date(e.created_at.date_naive()) },
        Column { name: "variant_id", cell: |e, _| maybe(e.campaign.xid.as_ref()) },
        Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
        Column { name: "total_impressions", cell: |_, _| Cell::Int(1) },
        Column { name: "anonymous_impressions", cell: |e, _| count(e.who.uid.is_none()) },
        Column { name: "identified_impressions", cell: |e, _| count(e.who.uid.is_some()) },
        Column { name: "unique_visitors", cell: |_, _| Cell::Int(1) },
        Column { name: "conversions", cell: |_, t| count(is_conversion(t)) },
        Column { name: "updated_at", cell: |e, _| e.received_at.into() },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

fn track(event: &Event) -> Option<&Track> {
    match &event.body {
        Body::Track(track) => Some(track),
        Body::Payment(_) | Body::Agreement(_) | Body::Link(_) | Body::Quarantine(_) => None,
    }
}

/// The part of the three message tables: a track with a thread.
fn threaded(event: &Event) -> Option<&Track> {
    track(event).filter(|track| track.thread.is_some())
}

/// The part of `impression_daily`: scored or converted, and known whose it is.
fn impression(event: &Event) -> Option<&Track> {
    event.who.oid?;
    threaded(event).filter(|track| is_conversion(track) || track.score.is_some())
}

fn is_conversion(track: &Track) -> bool {
    track.ename.as_deref() == Some("conversion")
}

fn count(yes: bool) -> Cell<'static> {
    Cell::Int(i64::from(yes))
}

fn thread(track: &Track) -> Option<&Thread> {
    track.thread.as_deref()
}

fn thread_id(track: &Track) -> Cell<'_> {
    maybe(thread(track).map(|thread| thread.tid))
}

fn message_id(track: &Track) -> Cell<'_> {
    maybe(thread(track).map(|thread| thread.mid))
}

fn field<'t>(track: &'t Track, name: &str) -> &'t Value {
    thread(track).and_then(|thread| thread.fields.get(name)).unwrap_or(&Value::Null)
}

fn or<'t>(cell: Cell<'t>, default: impl Into<Cell<'t>>) -> Cell<'t> {
    if cell == Cell::Null { default.into() } else { cell }
}

fn text<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    match field(track, name) {
        Value::Null => Cell::Null,
        Value::String(text) => text.into(),
        other => Cell::Text(Cow::Owned(other.to_string())),
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn long<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    maybe(whole(field(track, name)))
}

fn int<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    maybe(whole(field(track, name)).and_then(|number| i32::try_from(number).ok()))
}

fn float<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    let number = match field(track, name) {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    maybe(number.filter(|number: &f64| number.is_finite()))
}

fn truth<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    match field(track, name) {
        Value::Bool(truth) => (*truth).into(),
        Value::String(text) if text.eq_ignore_ascii_case("true") => true.into(),
        Value::String(text) if text.eq_ignore_ascii_case("false") => false.into(),
        _ => Cell::Null,
    }
}

/// An id as text; the zero id means absent.
fn id(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text.trim()).ok()).filter(|id| !id.is_nil())
}

fn uuid<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    id(field(track, name)).map_or(Cell::Null, Cell::Uuid)
}

/// RFC 3339, `2026-01-31 12:30:00`, or Unix seconds.
fn time<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    let moment: Option<DateTime<Utc>> = match field(track, name) {
        Value::Number(number) => {
            number.as_i64().and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        }
        Value::String(text) => DateTime::parse_from_rfc3339(text)
            .map(|moment| moment.to_utc())
            .or_else(|_| {
                NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                    .map(|moment| moment.and_utc())
            })
            .ok(),
        _ => None,
    };
    maybe(moment)
}

/// An object, or any other JSON as its text. A text that is no JSON becomes a JSON string, so that
/// a store never meets an unreadable one.
fn json<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    match field(track, name) {
        Value::Null => Cell::Null,
        Value::Object(map) => Cell::Json(map),
        Value::String(text) if is_json(text) => text.into(),
        other => Cell::Text(Cow::Owned(other.to_string())),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A list as sent, or a list written as JSON text; a lone text is a list of one.
fn items(value: &Value) -> Option<Cow<'_, [Value]>> {
    match value {
        Value::Null => None,
        Value::Array(items) => Some(Cow::Borrowed(items)),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => Some(Cow::Owned(items)),
            _ => Some(Cow::Owned(vec![value.clone()])),
        },
        other => Some(Cow::Owned(vec![other.clone()])),
    }
}

fn list<'t>(value: &Value, item: impl Fn(&Value) -> Option<String>) -> Cell<'t> {
    items(value).map_or(Cell::Null, |items| Cell::List(items.iter().filter_map(item).collect()))
}

fn texts<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    list(field(track, name), |item| match item {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    })
}

/// Ids; what is none is left out.
fn uuids<'t>(track: &'t Track, name: &str) -> Cell<'t> {
    list(field(track, name), |item| id(item).map(|id| id.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tables::{AnyTable, samples};

    fn event(fields: Value) -> Event {
        let mut event = samples::event(1);
        let Body::Track(track) = &mut event.body else { unreachable!() };
        let Value::Object(fields) = fields else { unreachable!() };
        track.thread = Some(Box::new(Thread {
            tid: Uuid::from_u128(7).into(),
            mid: Uuid::from_u128(8).into(),
            fields,
        }));
        event
    }

    fn cell<'e>(table: &dyn AnyTable, event: &'e Event, column: &str) -> Cell<'e> {
        let mut cells = Vec::new();
        assert_eq!(table.rows(event, &mut cells), 1);
        let at = table.columns().iter().position(|name| *name == column).unwrap();
        cells.swap_remove(at)
    }

    #[test]
    fn the_tables_have_the_columns_the_contract_counts_and_the_place_in_the_journal() {
        assert_eq!(MTHREADS.columns().len(), 132 + 2);
        assert_eq!(MSTORE.columns().len(), 48 + 2);
        assert_eq!(MTRIAGE.columns().len(), 41 + 2);
    }

    #[test]
    fn an_event_without_a_thread_has_no_row() {
        for table in [&MTHREADS, &MSTORE, &MTRIAGE, &IMPRESSION_DAILY] {
            assert!(!table.has_row(&samples::event(1)), "{}", table.name);
        }
    }

    #[test]
    fn only_a_scored_or_converted_event_of_an_organisation_is_an_impression() {
        let mut event = event(json!({}));
        let Body::Track(track) = &mut event.body else { unreachable!() };
        (track.score, track.ename) = (None, Some("open".into()));
        assert!(!IMPRESSION_DAILY.has_row(&event));
        let Body::Track(track) = &mut event.body else { unreachable!() };
        track.ename = Some("conversion".into());
        event.who.oid = Some(Uuid::from_u128(1).into());
        assert_eq!(cell(&IMPRESSION_DAILY, &event, "conversions"), Cell::Int(1));
        event.who.oid = None;
        assert!(!IMPRESSION_DAILY.has_row(&event));
    }

    #[test]
    fn a_message_on_its_way_is_urgent_and_kept_unless_said_otherwise() {
        let silent = event(json!({}));
        assert_eq!(cell(&MTRIAGE, &silent, "urgency"), Cell::Int(8));
        assert_eq!(cell(&MTRIAGE, &silent, "keep"), Cell::Bool(true));
        assert_eq!(cell(&MSTORE, &silent, "urgency"), Cell::Null);
        let said = event(json!({"urgency": 2, "keep": false}));
        assert_eq!(cell(&MTRIAGE, &said, "urgency"), Cell::Int(2));
        assert_eq!(cell(&MTRIAGE, &said, "keep"), Cell::Bool(false));
    }

    #[test]
    fn fields_are_read_as_the_type_of_their_column() {
        let moment = |seconds| Cell::Time(DateTime::from_timestamp(seconds, 0).unwrap());
        let list = |items: &[&str]| Cell::List(items.iter().map(ToString::to_string).collect());
        let one = Uuid::from_u128(1).to_string();
        let cases = [
            ("alias", json!("A b"), Cell::from("A b")),
            ("svc", json!({"a": 1}), Cell::from("{\"a\":1}")),
            ("urgency", json!("5"), Cell::Int(5)),
            ("urgency", json!(3_000_000_000_u64), Cell::Null),
            ("updatedms", json!(3_000_000_000_u64), Cell::Int(3_000_000_000)),
            ("provider_cost", json!("1.5"), Cell::Float(1.5)),
            ("provider_cost", json!("inf"), Cell::Null),
            ("sys", json!("TRUE"), Cell::Bool(true)),
            ("sys", json!(1), Cell::Null),
            ("owner", json!("nobody"), Cell::Null),
            ("owner", json!("00000000-0000-0000-0000-000000000000"), Cell::Null),
            ("owner", json!(one), Cell::Uuid(Uuid::from_u128(1))),
            ("deleted", json!("1970-01-01T01:00:00+01:00"), moment(0)),
            ("deleted", json!("1970-01-01 00:00:09"), moment(9)),
            ("deleted", json!(86_400), moment(86_400)),
            ("deleted", json!("soon"), Cell::Null),
            ("cats", json!(["a", 1]), list(&["a", "1"])),
            ("cats", json!("[\"x\"]"), list(&["x"])),
            ("cats", json!("news"), list(&["news"])),
            ("subs", json!(["nobody", one]), list(&[&one])),
            ("variants", json!([1]), Cell::from("[1]")),
            ("variants", json!("{\"a\":[2]}"), Cell::from("{\"a\":[2]}")),
            ("variants", json!("{broken"), Cell::from("\"{broken\"")),
        ];
        for (column, value, expect) in cases {
            let event = event(json!({ column: value }));
            assert_eq!(cell(&MTHREADS, &event, column), expect, "{column} = {value}");
        }
        let event = event(json!({"variants": {"a": 1}}));
        assert!(matches!(cell(&MTHREADS, &event, "variants"), Cell::Json(map) if map.len() == 1));
    }
}
