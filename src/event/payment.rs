//! What was paid or given back: the fact behind the tables `payments` and `ltv`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ids::OtherId;
use super::money::Money;

/// The payments of one request. They are one fact, so that all of them are stored or none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Payments {
    /// At least one.
    pub lines: Vec<Payment>,
    /// What the lines add to whose lifetime value.
    pub credits: Vec<Credit>,
    /// Who changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updater: Option<OtherId>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<OtherId>,
}

/// One line item; its fields are the columns of `payments`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Payment {
    /// The same for every telling of the same payment, so that stores can count it once.
    pub id: OtherId,
    /// Thread or campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<OtherId>,
    /// Invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invid: Option<OtherId>,
    /// Order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orid: Option<OtherId>,
    /// Product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<OtherId>,
    /// Product's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Product's category.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcat: Option<String>,
    /// Manufacturer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub man: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qty: Option<f64>,
    /// How long, as the sender counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
    /// Price of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Money>,
    /// Taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount: Option<Money>,
    /// What the line is worth; negative when it was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revenue: Option<Money>,
    /// Profit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<Money>,
    /// What it cost the seller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Tax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax: Option<Money>,
    /// Rate of tax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax_rate: Option<f64>,
    /// Commission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commission: Option<Money>,
    /// What the referrer gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referral: Option<Money>,
    /// Fees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fees: Option<Money>,
    /// Before tax and fees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtotal: Option<Money>,
    /// After tax and fees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
    /// What was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<Money>,
    /// ISO 4217, upper case.
    pub currency: String,
    /// Country, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Referral code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// Region, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// When it was invoiced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoiced_at: Option<DateTime<Utc>>,
    /// When what was bought begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<DateTime<Utc>>,
    /// When what was bought ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<DateTime<Utc>>,
    /// When it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<DateTime<Utc>>,
    /// Fields without a column, and texts of ids that were no UUID.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
}

impl Payment {
    /// The texts that come from free input.
    pub fn texts(&mut self) -> [&mut Option<String>; 8] {
        [
            &mut self.product,
            &mut self.pcat,
            &mut self.man,
            &mut self.model,
            &mut self.country,
            &mut self.rcode,
            &mut self.region,
            &mut self.campaign_id,
        ]
    }
}

/// What one payment adds to one lifetime value: a row of `ltv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credit {
    /// The payment's id.
    pub payment: OtherId,
    /// Whose value.
    pub id: OtherId,
    /// What `id` names.
    pub of: Holder,
    /// How much; negative when it was given back.
    pub paid: Money,
    /// ISO 4217.
    pub currency: String,
}

/// What a lifetime value is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A user.
    User,
    /// A visitor.
    Visitor,
    /// An order, or an invoice where no order was named.
    Order,
}

impl Holder {
    /// The stored word: the contract's `id_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "uid",
            Self::Visitor => "vid",
            Self::Order => "orid",
        }
    }
}
