//! Payments: what `ltv` reads beyond the fields of any event.
//!
//! Money is decimal from the text on. JSON's numbers would be binary fractions after reading, so
//! [`parse_payments`] reads money a second time, as it is written. What is no amount is refused with
//! the name of its field: a payment is never stored with less than was said, and a value that has no
//! column rides in the line's `params`.
//!
//! The same payment told twice must count once, and stores only append. So each line gets an id that
//! is the same whenever the same payment is told, and the stores' views take the latest of an id.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::build::{Bounds, Draft, id, moment};
use super::keys::Keys;
use super::{IntakeError, ParseError, fields, parse_json};
use crate::event::{
    Body, Credit, Event, EventId, Holder, Money, OtherId, Payment, Payments, UserId, VisitorId,
};

/// Payments of one request: they become one record, which every store takes as a whole.
const LINES_MAX: usize = 1_000;
/// Characters of an amount; the longest that fits has 20, and computed ones rarely more than 40.
const AMOUNT_CHARS_MAX: usize = 64;
/// What an amount is in where nothing else is said.
const CURRENCY: &str = "USD";
/// The line items of a request with several.
const LINES: &str = "payments";
const AMOUNT: &str = "amt";
const REFUND: &str = "refund";

/// Money by its field.
type Amount = (&'static str, Sign, fn(&mut Payment) -> &mut Option<Money>);

/// Whether an amount may be below zero.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Any,
    NotNegative,
}

/// The fields that hold money, but for [`AMOUNT`] and [`REFUND`].
static AMOUNTS: &[Amount] = &[
    ("price", Sign::NotNegative, |p| &mut p.price),
    ("discount", Sign::Any, |p| &mut p.discount),
    ("revenue", Sign::Any, |p| &mut p.revenue),
    ("margin", Sign::Any, |p| &mut p.margin),
    ("cost", Sign::NotNegative, |p| &mut p.cost),
    ("tax", Sign::Any, |p| &mut p.tax),
    ("commission", Sign::Any, |p| &mut p.commission),
    ("referral", Sign::Any, |p| &mut p.referral),
    ("fees", Sign::Any, |p| &mut p.fees),
    ("subtotal", Sign::Any, |p| &mut p.subtotal),
    ("total", Sign::Any, |p| &mut p.total),
    ("payment", Sign::Any, |p| &mut p.payment),
];

type Place<T> = (&'static str, fn(&mut Payment) -> &mut Option<T>);

static NUMBERS: &[Place<f64>] = &[("qty", |p| &mut p.qty), ("tax_rate", |p| &mut p.tax_rate)];

static TEXTS: &[Place<String>] = &[
    ("product", |p| &mut p.product),
    ("pcat", |p| &mut p.pcat),
    ("man", |p| &mut p.man),
    ("model", |p| &mut p.model),
    ("country", |p| &mut p.country),
    ("rcode", |p| &mut p.rcode),
    ("region", |p| &mut p.region),
    ("campaign_id", |p| &mut p.campaign_id),
];

static TIMES: &[Place<DateTime<Utc>>] = &[
    ("invoiced_at", |p| &mut p.invoiced_at),
    ("starts", |p| &mut p.starts),
    ("ends", |p| &mut p.ends),
    ("paid_at", |p| &mut p.paid_at),
];

static IDS: &[Place<OtherId>] = &[
    ("tid", |p| &mut p.tid),
    ("invid", |p| &mut p.invid),
    ("orid", |p| &mut p.orid),
    ("product_id", |p| &mut p.product_id),
];

/// Fields of the lines that stand beside `payments` for all of them.
static SHARED: &[&str] = &["invid", "orid", "currency", "campaign_id", REFUND];

/// Whether a line's field of this name holds money.
fn is_amount(name: &str) -> bool {
    name == AMOUNT || name == REFUND || AMOUNTS.iter().any(|(known, _, _)| *known == name)
}

/// Whether `name` belongs to a line.
fn is_of_line(name: &str) -> bool {
    is_amount(name)
        || matches!(name, "currency" | "duration")
        || NUMBERS.iter().any(|(known, _)| *known == name)
        || TEXTS.iter().any(|(known, _)| *known == name)
        || TIMES.iter().any(|(known, _)| *known == name)
        || IDS.iter().any(|(known, _)| *known == name)
}

/// As [`parse_json`] for the body of a payment: numbers that are money come as the text they are
/// written in, so that no digit is lost.
///
/// # Errors
/// As [`parse_json`].
pub fn parse_payments(bytes: &[u8], nesting_max: usize) -> Result<Value, ParseError> {
    let mut value = parse_json(bytes, nesting_max)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Value::Object(fields) = &mut value {
        // What was read above is read again; it cannot fail.
        if let Ok(raw) = serde_json::from_slice::<Raw<'_>>(bytes) {
            keep_digits(fields, &raw, true);
        }
    }
    Ok(value)
}

/// An object with its values as written; of equal names the last wins, as in [`parse_json`].
type Raw<'b> = std::collections::HashMap<String, &'b RawValue>;

fn keep_digits(fields: &mut Map<String, Value>, raw: &Raw<'_>, has_lines: bool) {
    for (name, value) in fields {
        let Some(written) = raw.get(name).map(|raw| raw.get()) else { continue };
        let known = name.to_ascii_lowercase();
        match value {
            Value::Number(_) if is_amount(&known) => *value = Value::String(written.to_owned()),
            Value::Array(lines) if has_lines && known == LINES => {
                let Ok(raw) = serde_json::from_str::<Vec<&RawValue>>(written) else { continue };
                for (line, raw) in lines.iter_mut().zip(raw) {
                    let raw = serde_json::from_str::<Raw<'_>>(raw.get());
                    if let (Value::Object(line), Ok(raw)) = (line, raw) {
                        keep_digits(line, &raw, false);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The lines of a request, taken out of its fields before these become an event.
pub(super) struct Lines {
    each: Vec<Line>,
    updater: Option<OtherId>,
    owner: Option<OtherId>,
}

/// One line, read as far as it can be alone.
struct Line {
    payment: Payment,
    /// What it adds to lifetime values.
    paid: Money,
    /// The sender's own name for this telling.
    eid: Option<Uuid>,
}

/// Takes the payments out of `fields`.
///
/// # Errors
/// The field that is wrong: no amount, no currency, not a list of objects.
pub(super) fn take(
    fields: &mut Map<String, Value>,
    keys: &Keys,
    bounds: &Bounds,
) -> Result<Lines, IntakeError> {
    lower_names(fields);
    let mut owner = |name: &str| match fields.swap_remove(name).map(|value| id(value, keys)) {
        Some(Ok(Some((id, _)))) => Ok(Some(OtherId::from(id))),
        Some(Ok(None)) | None => Ok(None),
        Some(Err(_)) => Err(invalid(name, "is neither a UUID nor a text")),
    };
    let (updater, owner) = (owner("updater")?, owner("owner")?);
    let reader = Reader { keys, bounds };
    let lines = match fields.swap_remove(LINES) {
        Some(Value::Array(items)) if !items.is_empty() => several(fields, items, &reader)?,
        None | Some(Value::Null | Value::Array(_)) => vec![single(fields, &reader)?],
        Some(_) => return Err(invalid(LINES, "is no list of objects")),
    };
    Ok(Lines { each: lines, updater, owner })
}

fn single(fields: &mut Map<String, Value>, reader: &Reader<'_>) -> Result<Line, IntakeError> {
    let mut own = Map::new();
    fields.retain(|name, value| {
        let is_own = is_of_line(name);
        if is_own {
            own.insert(name.clone(), value.take());
        }
        !is_own
    });
    // `tid` is a field of every event too, and so is `eid`.
    if let Some(tid) = own.get("tid") {
        fields.insert("tid".to_owned(), tid.clone());
    }
    reader.line(own, &|name| name.to_owned())
}

fn several(
    fields: &mut Map<String, Value>,
    items: Vec<Value>,
    reader: &Reader<'_>,
) -> Result<Vec<Line>, IntakeError> {
    if items.len() > LINES_MAX {
        return Err(invalid(LINES, &format!("has more than {LINES_MAX} lines")));
    }
    let shared: Vec<(&str, Value)> =
        SHARED.iter().filter_map(|name| Some((*name, fields.swap_remove(*name)?))).collect();
    let mut lines = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(mut item) = item else {
            return Err(invalid(&format!("{LINES}[{index}]"), "is no object"));
        };
        lower_names(&mut item);
        for (name, value) in &shared {
            if !item.contains_key(*name) {
                item.insert((*name).to_owned(), value.clone());
            }
        }
        lines.push(reader.line(item, &|name| format!("{LINES}[{index}].{name}"))?);
    }
    Ok(lines)
}

/// Names of lines are read in any case, as the other known names are.
fn lower_names(fields: &mut Map<String, Value>) {
    let is_odd = |name: &String| {
        let known = name.to_ascii_lowercase();
        known != *name && (is_of_line(&known) || matches!(&*known, LINES | "updater" | "owner"))
    };
    let odd: Vec<String> = fields.keys().filter(|name| is_odd(name)).cloned().collect();
    for name in odd {
        if let Some(value) = fields.swap_remove(&name) {
            fields.entry(name.to_ascii_lowercase()).or_insert(value);
        }
    }
}

/// Reads lines.
struct Reader<'r> {
    keys: &'r Keys,
    bounds: &'r Bounds,
}

impl Reader<'_> {
    /// A line of these fields; `path` names one of them for the sender.
    fn line(
        &self,
        mut said: Map<String, Value>,
        path: &dyn Fn(&str) -> String,
    ) -> Result<Line, IntakeError> {
        let currency = currency(said.swap_remove("currency"))
            .map_err(|message| invalid(&path("currency"), message))?;
        let mut payment = Payment { currency, ..Payment::default() };
        let mut amount = |name: &str, sign| {
            let read = amount(said.swap_remove(name).unwrap_or_default(), sign);
            read.map_err(|message| invalid(&path(name), message))
        };
        let given = amount(AMOUNT, Sign::Any)?;
        for (name, sign, place) in AMOUNTS {
            *place(&mut payment) = amount(name, *sign)?;
        }
        let refund =
            refund(said.swap_remove(REFUND)).map_err(|message| invalid(&path(REFUND), message))?;
        for (name, place) in NUMBERS {
            let value = said.swap_remove(*name).unwrap_or_default();
            *place(&mut payment) = keep(&mut said, name, fields::number(value));
            if place(&mut payment).is_some_and(|number| number < 0.0) {
                return Err(invalid(&path(name), "is below zero"));
            }
        }
        self.words(&mut payment, &mut said);
        let eid = said.swap_remove("eid").and_then(|value| id(value, self.keys).ok().flatten());
        payment.revenue = payment.revenue.or(given);
        if matches!(refund, Refund::Of(_)) && payment.revenue.is_some() {
            return Err(invalid(&path(REFUND), "stands beside an amount: which of them counts?"));
        }
        let paid = settle(&mut payment, refund)
            .ok_or_else(|| invalid(&path(AMOUNT), "is missing: how much was paid?"))?;
        payment.params.extend(said);
        Ok(Line { payment, paid, eid: eid.map(|(id, _)| id) })
    }

    /// What is not money. What cannot be read stays in `said`, and so does the text of an order.
    fn words(&self, payment: &mut Payment, said: &mut Map<String, Value>) {
        for (name, place) in TEXTS {
            let value = said.swap_remove(*name).unwrap_or_default();
            let read = fields::text(value, self.bounds.text_bytes_max);
            *place(payment) = keep(said, name, read);
        }
        let duration = fields::whole(said.swap_remove("duration").unwrap_or_default());
        payment.duration = keep(said, "duration", duration);
        for (name, place) in TIMES {
            let value = said.swap_remove(*name).unwrap_or_default();
            let read = match moment(&value) {
                Some(time) => Ok(Some(time)),
                None if value.is_null() => Ok(None),
                None => Err(value),
            };
            *place(payment) = keep(said, name, read);
        }
        for (name, place) in IDS {
            let value = said.swap_remove(*name).unwrap_or_default();
            if let Some((id, text)) = keep(said, name, id(value, self.keys)) {
                *place(payment) = Some(id.into());
                if let Some(text) = text {
                    said.insert((*name).to_owned(), Value::String(text));
                }
            }
        }
    }
}

/// What was read; what was of another kind goes back under its name.
fn keep<T>(said: &mut Map<String, Value>, name: &str, read: Result<Option<T>, Value>) -> Option<T> {
    read.unwrap_or_else(|value| {
        said.insert(name.to_owned(), value);
        None
    })
}

/// What a refund says.
#[derive(Clone, Copy)]
enum Refund {
    /// Nothing: the sign of the amount decides.
    No,
    /// The amounts of this line were given back.
    Yes,
    /// So much was given back.
    Of(Money),
}

fn refund(value: Option<Value>) -> Result<Refund, &'static str> {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => Ok(Refund::No),
        Some(Value::Bool(true)) => Ok(Refund::Yes),
        Some(Value::String(text)) if matches!(text.trim(), "" | "false") => Ok(Refund::No),
        Some(Value::String(text)) if text.trim() == "true" => Ok(Refund::Yes),
        Some(value) => Ok(amount(value, Sign::Any)?.map_or(Refund::No, Refund::Of)),
    }
}

/// Turns a refund's amounts round; what the line adds to lifetime values, if it says how much.
fn settle(payment: &mut Payment, refund: Refund) -> Option<Money> {
    if let Refund::Of(given_back) = refund {
        payment.revenue = Some(given_back);
    }
    if !matches!(refund, Refund::No) {
        for amount in [&mut payment.revenue, &mut payment.payment, &mut payment.total] {
            *amount = amount.map(Money::given_back);
        }
    }
    payment.revenue.or(payment.payment).or(payment.total)
}

fn currency(value: Option<Value>) -> Result<String, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(CURRENCY.to_owned()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(CURRENCY.to_owned()),
        Some(Value::String(text)) => {
            iso_currency::Currency::from_code(&text.trim().to_ascii_uppercase())
                .map(|currency| currency.code().to_owned())
                .ok_or("is no currency of ISO 4217, such as USD")
        }
        Some(_) => Err("is no text such as USD"),
    }
}

/// An amount, rounded to four decimals, half away from zero; absent when nothing was said.
fn amount(value: Value, sign: Sign) -> Result<Option<Money>, &'static str> {
    const NO_AMOUNT: &str = "is no decimal number of at most 14 digits before the point";
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(NO_AMOUNT),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let is_number =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if text.len() > AMOUNT_CHARS_MAX || !text.bytes().all(is_number) {
        return Err(NO_AMOUNT);
    }
    let parsed = match text.find(['e', 'E']) {
        None => Decimal::from_str(text),
        Some(_) => Decimal::from_scientific(text),
    };
    let decimal = parsed.map_err(|_| NO_AMOUNT)?;
    let mut rounded =
        decimal.round_dp_with_strategy(Money::SCALE, RoundingStrategy::MidpointAwayFromZero);
    rounded.rescale(Money::SCALE);
    // A number too large for four decimals keeps the scale it has room for.
    let units = Some(rounded.mantissa()).filter(|_| rounded.scale() == Money::SCALE);
    let money = units.and_then(Money::from_units).ok_or(NO_AMOUNT)?;
    if sign == Sign::NotNegative && money.is_negative() {
        return Err("is below zero");
    }
    Ok(Some(money))
}

/// The event of these lines.
pub(super) fn finish(draft: Draft, lines: Lines, keys: &Keys) -> Event {
    let Draft { mut event, track, .. } = draft;
    let has_own_id = !event.id.uuid().is_nil();
    if !has_own_id {
        event.id = EventId::generate();
    }
    let Lines { each, updater, owner } = lines;
    let mut payments = Payments { updater, owner, ..Payments::default() };
    let mut names = std::collections::HashMap::new();
    for (index, Line { mut payment, paid, eid }) in each.into_iter().enumerate() {
        payment.tid = payment.tid.or(track.tid);
        payment.paid_at = payment.paid_at.or(Some(event.created_at));
        let told = eid.or(has_own_id.then(|| event.id.uuid()));
        let name = name(&event, &payment, paid, told).unwrap_or_default();
        let nth = names.entry(name.clone()).and_modify(|nth| *nth += 1).or_insert(0_usize);
        payment.id = match &*name {
            "" => keys.id(&format!("payment of {} {index}", event.id)),
            name => keys.id(&format!("payment {name} {nth}")),
        }
        .into();
        credit(&mut payments.credits, &event, &payment, paid);
        payments.lines.push(payment);
    }
    // What is said once for several lines stands with the first.
    if let Some(first) = payments.lines.first_mut() {
        for (name, value) in std::mem::take(&mut event.params) {
            first.params.entry(name).or_insert(value);
        }
    }
    event.body = Body::Payment(Box::new(payments));
    event
}

/// What makes two tellings the same payment: its order, with invoice, product and direction, so that
/// an order's parts and its refund stay apart. A refund goes by its own id first, because one order
/// can be refunded in steps. Without an order, the id of the telling.
fn name(event: &Event, payment: &Payment, paid: Money, told: Option<Uuid>) -> Option<String> {
    let own = told.map(|id| format!("told {id}"));
    let by_order = || {
        let order = payment.orid.or(payment.invid)?;
        let part = payment.product_id.map(|id| id.to_string()).or(payment.product.clone());
        let direction = if paid.is_negative() { "back" } else { "paid" };
        let organisation = event.who.oid.map(|id| id.to_string()).unwrap_or_default();
        let invoice = payment.invid.map(|id| id.to_string()).unwrap_or_default();
        let part = part.unwrap_or_default();
        Some(format!("{organisation} {order} {invoice} {direction} {part}"))
    };
    if paid.is_negative() { own.or_else(by_order) } else { by_order().or(own) }
}

/// Adds what a payment is worth to its user, its visitor and its order.
fn credit(credits: &mut Vec<Credit>, event: &Event, payment: &Payment, paid: Money) {
    let user = event.who.uid.map(UserId::uuid);
    let visitor = event.who.vid.map(VisitorId::uuid);
    let order = payment.orid.or(payment.invid).map(OtherId::uuid);
    for (of, id) in [(Holder::User, user), (Holder::Visitor, visitor), (Holder::Order, order)] {
        if let Some(id) = id {
            let currency = payment.currency.clone();
            credits.push(Credit { payment: payment.id, id: id.into(), of, paid, currency });
        }
    }
}

fn invalid(field: &str, message: &str) -> IntakeError {
    IntakeError::Invalid { field: field.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::HashMode;

    fn keys() -> Keys {
        Keys::from_bytes([7; 32], HashMode::Keyed, "")
    }

    fn read(body: &str) -> Result<Lines, IntakeError> {
        let Value::Object(mut fields) = parse_payments(body.as_bytes(), 64).unwrap() else {
            panic!("{body}")
        };
        take(&mut fields, &keys(), &Bounds { text_bytes_max: 100, nesting_max: 8 })
    }

    fn one(body: &str) -> (Payment, Money) {
        let line = read(body).unwrap().each.remove(0);
        (line.payment, line.paid)
    }

    #[test]
    fn amounts_keep_every_digit_of_the_text() {
        for (written, expect) in [
            ("99.99", "99.9900"),
            ("0.1", "0.1000"),
            ("12345678901234.5678", "12345678901234.5678"),
            ("99999999999999.9999", "99999999999999.9999"),
            ("-0.0001", "-0.0001"),
            ("1e3", "1000.0000"),
            ("1.5E-2", "0.0150"),
            ("0.30000000000000004", "0.3000"),
            ("0.00005", "0.0001"),
            ("-0.00005", "-0.0001"),
            ("0.00004999999999", "0.0000"),
            ("\" 7.50 \"", "7.5000"),
            ("\"+7\"", "7.0000"),
        ] {
            let (payment, paid) = one(&format!(r#"{{"amt":{written}}}"#));
            assert_eq!(paid.to_string(), expect, "{written}");
            assert_eq!(payment.revenue, Some(paid), "{written}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_field() {
        let check = |body: &str, field: &str| match read(body) {
            Err(IntakeError::Invalid { field: found, .. }) => assert_eq!(found, field, "{body}"),
            Err(other) => panic!("{body}: {other}"),
            Ok(_) => panic!("{body} was taken"),
        };
        check(r#"{"amt":"NaN"}"#, "amt");
        check(r#"{"amt":"Infinity"}"#, "amt");
        check(r#"{"amt":"-inf"}"#, "amt");
        check(r#"{"amt":1e308}"#, "amt");
        check(r#"{"amt":1e-400}"#, "amt");
        check(r#"{"amt":100000000000000}"#, "amt");
        check(r#"{"amt":99999999999999.99995}"#, "amt");
        check(r#"{"amt":"12,50"}"#, "amt");
        check(r#"{"amt":"1_000"}"#, "amt");
        check(r#"{"amt":"0x10"}"#, "amt");
        check(r#"{"amt":"."}"#, "amt");
        check(r#"{"amt":"--1"}"#, "amt");
        check(r#"{"amt":true}"#, "amt");
        check(r#"{"amt":[1]}"#, "amt");
        check(r#"{"amt":{}}"#, "amt");
        check("{}", "amt");
        check(r#"{"amt":""}"#, "amt");
        check(r#"{"amt":1,"price":-1}"#, "price");
        check(r#"{"amt":1,"cost":"-0.01"}"#, "cost");
        check(r#"{"amt":1,"qty":-2}"#, "qty");
        check(r#"{"amt":1,"tax":"x"}"#, "tax");
        check(r#"{"amt":1,"currency":"XYZ"}"#, "currency");
        check(r#"{"amt":1,"currency":840}"#, "currency");
        check(r#"{"amt":1,"refund":"perhaps"}"#, "refund");
        check(r#"{"amt":10,"refund":3}"#, "refund");
        check(r#"{"payments":[{"amt":1},{"amt":"x"}]}"#, "payments[1].amt");
        check(r#"{"payments":[{"amt":1},2]}"#, "payments[1]");
        check(r#"{"payments":{"amt":1}}"#, "payments");
        check(r#"{"payments":[{"amt":1,"currency":"??"}]}"#, "payments[0].currency");
    }

    #[test]
    fn currencies_are_those_of_iso_4217_in_any_case() {
        for (sent, expect) in
            [(r#""usd""#, "USD"), (r#"" EUR ""#, "EUR"), ("null", "USD"), (r#""""#, "USD")]
        {
            assert_eq!(one(&format!(r#"{{"amt":1,"currency":{sent}}}"#)).0.currency, expect);
        }
        assert_eq!(one(r#"{"amt":1}"#).0.currency, "USD");
    }

    #[test]
    fn a_refund_takes_away() {
        for (body, expect) in [
            (r#"{"amt":-5}"#, "-5.0000"),
            (r#"{"amt":5,"refund":true}"#, "-5.0000"),
            (r#"{"amt":-5,"refund":true}"#, "-5.0000"),
            (r#"{"refund":5.25}"#, "-5.2500"),
            (r#"{"refund":"5.25"}"#, "-5.2500"),
            (r#"{"amt":5,"refund":false}"#, "5.0000"),
            (r#"{"payment":5,"refund":"true"}"#, "-5.0000"),
        ] {
            assert_eq!(one(body).1.to_string(), expect, "{body}");
        }
    }

    #[test]
    fn no_field_is_lost_whatever_its_type() {
        let (payment, _) =
            one(r#"{"amt":1,"Product":{"a":1},"model":5,"qty":"2","duration":"x","paid_at":"soon",
                "orid":"order-123","product_id":[1],"Colour":"red","AMT":2}"#);
        assert_eq!(payment.model.as_deref(), Some("5"));
        assert_eq!(payment.qty, Some(2.0));
        assert_eq!(payment.orid.unwrap().uuid(), keys().id("order-123"));
        let expect = json!({
            "product": {"a": 1}, "duration": "x", "paid_at": "soon", "product_id": [1],
            "orid": "order-123"
        });
        assert_eq!(Value::Object(payment.params), expect);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_amount_that_fits_reads_back(units in -Money::UNITS_MAX..=Money::UNITS_MAX) {
            let money = Money::from_units(i128::from(units)).unwrap();
            let (payment, paid) = one(&format!(r#"{{"amt":{money}}}"#));
            prop_assert_eq!(paid, money);
            prop_assert_eq!(payment.revenue, Some(money));
        }

        #[test]
        fn any_text_is_an_amount_or_refused(text in ".{0,80}") {
            let _ = amount(Value::String(text), Sign::Any);
        }
    }
}
