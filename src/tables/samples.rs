//! Events for tests: one with every field set, so that no column of `events` stays empty.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::event::{
    Agent, Agreement, Body, Campaign, Consent, Credit, Event, Holder, Ingest, Link, Money, Origin,
    Page, Payment, Payments, Place, Track, Verdict, Who,
};

/// The journal the events say they come from.
pub(crate) const NODE: &str = "node-a";

/// Noon of 1 February 2026, UTC.
pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_769_947_200, 0).unwrap()
}

/// A client event at position `seq`, `seq` seconds after [`noon`], with every field set.
pub(crate) fn event(seq: u64) -> Event {
    let created_at = noon() + chrono::TimeDelta::seconds(seq.cast_signed());
    let text = |text: &str| Some(text.to_owned());
    Event {
        id: Uuid::from_u128(u128::from(seq)).into(),
        received_at: created_at,
        created_at,
        origin: Origin::Client,
        host: "example.org".into(),
        hhash: "hh".into(),
        who: Who {
            vid: Some(Uuid::from_u128(100).into()),
            is_new: seq == 1,
            sid: Some(Uuid::from_u128(200).into()),
            uid: Some(Uuid::from_u128(300).into()),
            oid: Some(Uuid::from_u128(400).into()),
            org: text("acme"),
            auth_id: Some(Uuid::from_u128(500).into()),
            device_id: Some(Uuid::from_u128(600).into()),
            ehash: text("eh"),
            chash: text("ch"),
            nhash: text("nh"),
            gaid: text("gaid"),
            idfa: text("idfa"),
            msid: text("msid"),
            fbid: text("fbid"),
        },
        page: Page {
            url: text("https://example.org/a"),
            last: text("https://example.net/b"),
            app: text("site"),
            rel: text("1.0"),
            ptyp: text("article"),
            ver: Some(3),
            vp_w: Some(1280),
            vp_h: Some(720),
            duration: Some(1500),
        },
        campaign: Campaign {
            source: text("news"),
            medium: text("mail"),
            campaign: text("spring"),
            content: text("hero"),
            term: text("shoes"),
            aff: text("aff"),
            rcode: text("rcode"),
            referral: Some(Uuid::from_u128(700).into()),
            channel: text("email"),
            click: text("gclid"),
            xid: text("xid"),
            split: text("a"),
            arm_id: text("arm"),
            mcid: text("mcid"),
        },
        agent: Agent {
            user_agent: text("Mozilla/5.0 Firefox/140"),
            bhash: text("bh"),
            browser: text("Firefox"),
            os: text("Linux"),
            device: text("PC"),
            device_class: text("desktop"),
            culture: text("de-de"),
            ja4h: text("a_b_c_d"),
            verdict: Verdict::Human,
            reasons: vec!["one".into(), "two, or more".into()],
        },
        place: Place {
            ip: Some([192, 0, 2, 0].into()),
            iphash: text("ih"),
            country: text("DE"),
            region: text("berlin"),
            city: text("berlin"),
            zip: text("10115"),
            lat: Some(52.5),
            lon: Some(13.4),
            tz: text("Europe/Berlin"),
        },
        consent: Consent { cflags: Some(5), gpc: true, dnt: true, advertising: false },
        params: object(json!({"plan": "Pro", "n": seq})),
        body: Body::Track(Box::new(Track {
            ename: text("viewed"),
            etyp: text("view"),
            outcome: text("signup"),
            score: Some(0.5),
            sink: text("checkout"),
            relation: text("post"),
            rid: Some(Uuid::from_u128(800).into()),
            tid: Some(Uuid::from_u128(900).into()),
            invoice_id: Some(Uuid::from_u128(1000).into()),
            targets: object(json!({"video": ["v1"]})),
            seq: Some(seq.cast_signed()),
            thread: None,
        })),
        aim: None,
        ingest: Ingest { node: Arc::from(NODE), seq },
    }
}

/// An event with one payment of 99.99, which every field says something of.
pub(crate) fn payment(seq: u64) -> Event {
    let text = |text: &str| Some(text.to_owned());
    let id = |id: u128| Some(Uuid::from_u128(id).into());
    let money = Money::from_units(999_900);
    let line = Payment {
        id: Uuid::from_u128(1100).into(),
        tid: id(900),
        invid: id(1000),
        orid: id(1200),
        product_id: id(1300),
        product: text("shoe"),
        pcat: text("wear"),
        man: text("maker"),
        model: text("m1"),
        qty: Some(2.0),
        duration: Some(30),
        price: money,
        discount: money,
        revenue: money,
        margin: money,
        cost: money,
        tax: money,
        tax_rate: Some(0.19),
        commission: money,
        referral: money,
        fees: money,
        subtotal: money,
        total: money,
        payment: money,
        currency: "EUR".into(),
        country: text("DE"),
        rcode: text("rcode"),
        region: text("berlin"),
        campaign_id: text("spring"),
        invoiced_at: Some(noon()),
        starts: Some(noon()),
        ends: Some(noon()),
        paid_at: Some(noon()),
        params: object(json!({"orid": "order-1"})),
    };
    let credit = Credit {
        payment: line.id,
        id: Uuid::from_u128(300).into(),
        of: Holder::User,
        paid: line.revenue.unwrap(),
        currency: line.currency.clone(),
    };
    let payments =
        Payments { lines: vec![line], credits: vec![credit], updater: id(1400), owner: id(1500) };
    Event { body: Body::Payment(Box::new(payments)), ..event(seq) }
}

/// An event with an agreement, which every field says something of.
pub(crate) fn agreement(seq: u64) -> Event {
    let agreement = Agreement {
        avid: Some(Uuid::from_u128(1600).into()),
        owner: Some(Uuid::from_u128(1500).into()),
        compliances: object(json!({"GDPR": ["ads"]})),
        loc: object(json!({"country": "DE"})),
    };
    Event { body: Body::Agreement(Box::new(agreement)), ..event(seq) }
}

/// The short link of `path` on `example.org`, made or changed at position `seq` to lead to `to`.
pub(crate) fn link(seq: u64, path: &str, to: &str) -> Event {
    let link = Link {
        urlfrom: format!("example.org{path}"),
        hostfrom: "example.org".into(),
        slugfrom: path.into(),
        urlto: to.into(),
        hostto: "example.net".into(),
        pathto: "/b".into(),
        searchto: None,
        updater: Uuid::from_u128(300).into(),
    };
    Event { body: Body::Link(Box::new(link)), ..event(seq) }
}

fn object(value: serde_json::Value) -> Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => Map::new(),
    }
}
