//! The fields an event is built from, as data: each name once, and where its value goes.
//!
//! All lists are sorted, so that a name is found by halving; a test keeps them so. Fields are sorted
//! by length first, which spares most comparisons of text.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::build::Draft;

/// Where the value of a field goes, and as what it is read.
pub(super) enum Slot {
    /// Text as sent.
    Text(fn(&mut Draft) -> &mut Option<String>),
    /// Text in lower case.
    Folded(fn(&mut Draft) -> &mut Option<String>),
    /// A web address, not yet cleaned.
    Address(fn(&mut Draft) -> &mut Option<String>),
    /// A whole number.
    Whole(fn(&mut Draft) -> &mut Option<i64>),
    /// A finite number.
    Number(fn(&mut Draft) -> &mut Option<f64>),
    /// An object, or a text that holds one.
    Object(fn(&mut Draft) -> &mut Map<String, Value>),
    /// An id: any UUID, or a text that is mapped to one.
    Id(fn(&mut Draft, Uuid)),
    /// The thread's id, which decides about the message tables.
    Thread,
    /// The invoice's id, whose text is kept.
    Invoice,
    /// An author's id, or the token that shipped clients send under the same name.
    Author,
    /// The account check's value.
    Account,
    /// When it happened.
    Created,
    /// `ver`, which is narrower than the other numbers.
    Version,
    /// Custom fields as an object.
    Params,
    /// Known to the contract, but computed here, structural, or nobody's to say.
    Dropped,
}

/// Every known field. `uhash` and `nhash` are one, and so are `w` and `vp_w`, `h` and `vp_h`.
pub(super) static FIELDS: &[(&str, Slot)] = &[
    ("h", Slot::Whole(|d| &mut d.event.page.vp_h)),
    ("w", Slot::Whole(|d| &mut d.event.page.vp_w)),
    ("ip", Slot::Dropped),
    ("os", Slot::Text(|d| &mut d.event.agent.os)),
    ("tr", Slot::Dropped),
    ("tz", Slot::Text(|d| &mut d.event.place.tz)),
    ("v1", Slot::Dropped),
    ("vp", Slot::Dropped),
    ("aff", Slot::Text(|d| &mut d.event.campaign.aff)),
    ("app", Slot::Text(|d| &mut d.event.page.app)),
    ("did", Slot::Id(|d, id| d.event.who.device_id = Some(id.into()))),
    ("eid", Slot::Id(|d, id| d.event.id = id.into())),
    ("jwt", Slot::Dropped),
    ("lat", Slot::Number(|d| &mut d.event.place.lat)),
    ("lon", Slot::Number(|d| &mut d.event.place.lon)),
    ("oid", Slot::Id(|d, id| d.event.who.oid = Some(id.into()))),
    ("org", Slot::Text(|d| &mut d.event.who.org)),
    ("ref", Slot::Id(|d, id| d.event.campaign.referral = Some(id.into()))),
    ("rel", Slot::Text(|d| &mut d.event.page.rel)),
    ("rid", Slot::Id(|d, id| d.track.rid = Some(id.into()))),
    ("seq", Slot::Whole(|d| &mut d.track.seq)),
    ("sid", Slot::Id(|d, id| d.event.who.sid = Some(id.into()))),
    ("tid", Slot::Thread),
    ("uid", Slot::Id(|d, id| d.event.who.uid = Some(id.into()))),
    ("uri", Slot::Dropped),
    ("url", Slot::Address(|d| &mut d.said.url)),
    ("ver", Slot::Version),
    ("vid", Slot::Id(|d, id| d.event.who.vid = Some(id.into()))),
    ("xid", Slot::Text(|d| &mut d.event.campaign.xid)),
    ("zip", Slot::Text(|d| &mut d.event.place.zip)),
    ("acct", Slot::Account),
    ("auth", Slot::Author),
    ("cell", Slot::Text(|d| &mut d.said.cell)),
    ("city", Slot::Text(|d| &mut d.event.place.city)),
    ("etyp", Slot::Folded(|d| &mut d.track.etyp)),
    ("fbid", Slot::Text(|d| &mut d.event.who.fbid)),
    ("gaid", Slot::Text(|d| &mut d.event.who.gaid)),
    ("idfa", Slot::Text(|d| &mut d.event.who.idfa)),
    ("last", Slot::Address(|d| &mut d.said.last)),
    ("mcid", Slot::Text(|d| &mut d.event.campaign.mcid)),
    ("msid", Slot::Text(|d| &mut d.event.who.msid)),
    ("ptyp", Slot::Folded(|d| &mut d.event.page.ptyp)),
    ("sink", Slot::Folded(|d| &mut d.track.sink)),
    ("term", Slot::Folded(|d| &mut d.event.campaign.term)),
    ("time", Slot::Dropped),
    ("vp_h", Slot::Whole(|d| &mut d.event.page.vp_h)),
    ("vp_w", Slot::Whole(|d| &mut d.event.page.vp_w)),
    ("bhash", Slot::Dropped),
    ("chash", Slot::Text(|d| &mut d.event.who.chash)),
    ("ehash", Slot::Text(|d| &mut d.event.who.ehash)),
    ("email", Slot::Text(|d| &mut d.said.email)),
    ("ename", Slot::Folded(|d| &mut d.track.ename)),
    ("first", Slot::Dropped),
    ("hhash", Slot::Dropped),
    ("nhash", Slot::Text(|d| &mut d.event.who.nhash)),
    ("rcode", Slot::Text(|d| &mut d.event.campaign.rcode)),
    ("score", Slot::Number(|d| &mut d.track.score)),
    ("split", Slot::Text(|d| &mut d.event.campaign.split)),
    ("uhash", Slot::Text(|d| &mut d.event.who.nhash)),
    ("uname", Slot::Text(|d| &mut d.said.uname)),
    ("arm_id", Slot::Text(|d| &mut d.event.campaign.arm_id)),
    ("cflags", Slot::Whole(|d| &mut d.event.consent.cflags)),
    ("device", Slot::Text(|d| &mut d.event.agent.device)),
    ("iphash", Slot::Dropped),
    ("latlon", Slot::Dropped),
    ("medium", Slot::Folded(|d| &mut d.event.campaign.medium)),
    ("params", Slot::Params),
    ("region", Slot::Text(|d| &mut d.event.place.region)),
    ("source", Slot::Folded(|d| &mut d.event.campaign.source)),
    ("auth_id", Slot::Id(|d, id| d.event.who.auth_id = Some(id.into()))),
    ("browser", Slot::Text(|d| &mut d.event.agent.browser)),
    ("content", Slot::Folded(|d| &mut d.event.campaign.content)),
    ("country", Slot::Text(|d| &mut d.event.place.country)),
    ("created", Slot::Created),
    ("culture", Slot::Folded(|d| &mut d.event.agent.culture)),
    ("outcome", Slot::Folded(|d| &mut d.track.outcome)),
    ("targets", Slot::Object(|d| &mut d.track.targets)),
    ("campaign", Slot::Folded(|d| &mut d.event.campaign.campaign)),
    ("duration", Slot::Whole(|d| &mut d.event.page.duration)),
    ("relation", Slot::Folded(|d| &mut d.track.relation)),
    ("verified", Slot::Dropped),
    ("device_id", Slot::Id(|d, id| d.event.who.device_id = Some(id.into()))),
    ("created_at", Slot::Created),
    ("invoice_id", Slot::Invoice),
];

/// Names that known clients copy into `params`; they are left out of it (contract, appendix B).
pub(super) static COPIES: &[&str] = &[
    "acct", "aff", "app", "arm_id", "auth", "auth_id", "bhash", "browser", "campaign", "cell",
    "cflags", "chash", "city", "content", "country", "created", "culture", "device", "did",
    "duration", "ehash", "eid", "email", "ename", "etyp", "fbid", "first", "gaid", "h", "hhash",
    "idfa", "ip", "iphash", "last", "lat", "latlon", "lon", "mcid", "medium", "msid", "os",
    "params", "ptyp", "rcode", "ref", "region", "rel", "relation", "rid", "score", "sid", "sink",
    "source", "split", "targets", "term", "time", "tr", "tz", "uhash", "uid", "uname", "uri",
    "url", "v1", "ver", "vid", "vp", "w", "xid", "zip",
];

/// Columns of `mthreads`, `mstore` and `mtriage` that come from fields of the same name and that
/// `events` does not have; the others are read from the event itself (contract, appendix C).
pub(super) static MESSAGE: &[&str] = &[
    "abz_acquisition_function",
    "abz_algorithm",
    "abz_auto_optimize",
    "abz_auto_stop",
    "abz_confidence_level",
    "abz_enabled",
    "abz_exploration_rate",
    "abz_infinite_armed",
    "abz_learning_rate",
    "abz_min_sample_size",
    "abz_model_params",
    "abz_model_type",
    "abz_param_space",
    "abz_params",
    "abz_reward_metric",
    "abz_reward_value",
    "abz_sample_size",
    "abz_start_time",
    "abz_status",
    "abz_winner_threshold",
    "actual_impressions",
    "admins",
    "alias",
    "archived",
    "attribution_model",
    "attribution_params",
    "attribution_weight",
    "attribution_window",
    "audience_metrics",
    "audience_params",
    "audience_segments",
    "auth_name",
    "broadcast",
    "campaign_budget_allocation",
    "campaign_id",
    "campaign_phase",
    "campaign_priority",
    "campaign_status",
    "cats",
    "cmtypes",
    "cohorts",
    "completed",
    "consent_types",
    "content_approval_date",
    "content_approver",
    "content_assumptions",
    "content_creator",
    "content_editors",
    "content_history",
    "content_id",
    "content_intention",
    "content_keywords",
    "content_metrics",
    "content_status",
    "content_version",
    "conversion_event_count",
    "conversion_value",
    "cost_per_impression",
    "createdms",
    "creator_compensation",
    "creator_compensation_cap",
    "creator_compensation_model",
    "creator_compensation_rate",
    "creator_id",
    "creator_notes",
    "data",
    "data_retention",
    "ddata",
    "deleted",
    "deliveries",
    "derive",
    "ephemeral",
    "failures",
    "fmtypes",
    "frequency_caps",
    "ftrack",
    "funnel_stage",
    "hidden",
    "hide",
    "impression_budget",
    "impression_goal",
    "interest",
    "keep",
    "mcert_id",
    "meta",
    "msg",
    "mtempl",
    "mtypes",
    "name",
    "openp",
    "opens",
    "outs",
    "owner",
    "parent_tid",
    "perf",
    "perms_ids",
    "planned",
    "planned_impressions",
    "pmid",
    "post",
    "prefs",
    "promo",
    "provider",
    "provider_account_id",
    "provider_campaign_id",
    "provider_cost",
    "provider_metrics",
    "provider_status",
    "pubs",
    "qid",
    "recipient_timezone",
    "regional_compliance",
    "repl",
    "requires_consent",
    "scheduled",
    "scheduled_local_dow",
    "scheduled_local_hour",
    "sent",
    "splits",
    "started",
    "strack",
    "subject",
    "subs",
    "svc",
    "sys",
    "total_conversions",
    "updatedms",
    "updater",
    "urgency",
    "users",
    "utc_offset_minutes",
    "variant_weights",
    "variants",
    "vid_targets",
    "winner_variant",
    "xstatus",
];

/// The slot of `name`, when it is a known field.
pub(super) fn slot(name: &str) -> Option<&'static Slot> {
    let at = FIELDS.binary_search_by(|(known, _)| by_length(known).cmp(&by_length(name))).ok()?;
    FIELDS.get(at).map(|(_, slot)| slot)
}

/// How fields are sorted.
fn by_length(name: &str) -> (usize, &str) {
    (name.len(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_in_one_list_only() {
        assert!(FIELDS.is_sorted_by(|a, b| by_length(a.0) < by_length(b.0)));
        assert!(COPIES.is_sorted_by(|a, b| a < b));
        assert!(MESSAGE.is_sorted_by(|a, b| a < b));
        for name in MESSAGE {
            assert!(slot(name).is_none(), "{name}");
        }
        for name in COPIES {
            assert!(slot(name).is_some(), "{name}");
        }
    }
}
