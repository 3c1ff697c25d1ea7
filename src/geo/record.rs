//! One record of an MMDB database in either shape.
//!
//! Each value is read as what it is: text, a number of either width, a map, or a list whose first
//! element counts. Which shape a database has then needs no guess. Strings are borrowed from the
//! database until a [`Place`] is made of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Place;

/// The values of a record that say where, by the names of both shapes.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    country_code: Part<'a>,
    #[serde(borrow)]
    country: Part<'a>,
    #[serde(borrow)]
    registered_country: Part<'a>,
    #[serde(borrow)]
    state1: Part<'a>,
    #[serde(borrow)]
    region: Part<'a>,
    #[serde(borrow)]
    subdivisions: Part<'a>,
    #[serde(borrow)]
    city: Part<'a>,
    #[serde(borrow)]
    postcode: Part<'a>,
    #[serde(borrow)]
    postal: Part<'a>,
    #[serde(borrow)]
    timezone: Part<'a>,
    #[serde(borrow)]
    latitude: Part<'a>,
    #[serde(borrow)]
    longitude: Part<'a>,
    #[serde(borrow)]
    location: Part<'a>,
}

/// A value of a record, reduced to what a place needs of it.
#[derive(Clone, Copy, Default)]
struct Part<'a> {
    /// The text itself, or the English name in a map.
    text: Option<&'a str>,
    /// `iso_code` or `code` in a map.
    code: Option<&'a str>,
    /// The number itself.
    number: Option<f64>,
    /// `latitude`, `longitude` and `time_zone` of a `location` map.
    lat: Option<f64>,
    lon: Option<f64>,
    zone: Option<&'a str>,
}

impl Record<'_> {
    /// The place; a country by itself wins over the country an address is registered in.
    pub(super) fn into_place(self) -> Place {
        let country = [
            self.country_code.text,
            self.country.code,
            self.country.text,
            self.registered_country.code,
        ];
        Place {
            country: country
                .into_iter()
                .flatten()
                .find(|code| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic()))
                .map(str::to_ascii_uppercase),
            country_name: known(self.country.text).filter(|name| name.len() > 2),
            region: [self.state1.text, self.region.text, self.subdivisions.text]
                .into_iter()
                .chain([self.subdivisions.code])
                .find_map(known),
            city: known(self.city.text),
            zip: [self.postcode.text, self.postal.code, self.postal.text]
                .into_iter()
                .find_map(known),
            lat: self.location.lat.or(self.latitude.number),
            lon: self.location.lon.or(self.longitude.number),
            tz: [self.location.zone, self.timezone.text].into_iter().find_map(known),
        }
    }
}

/// `text` unless it is empty or the dash that stands for nothing.
fn known(text: Option<&str>) -> Option<String> {
    text.filter(|text| !matches!(*text, "" | "-")).map(str::to_owned)
}

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a map or a list")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Part<'de>, E> {
        Ok(Part { text: Some(text), ..Part::default() })
    }

    fn visit_f32<E>(self, number: f32) -> Result<Part<'de>, E> {
        // By way of its shortest decimal form: 37.751 stays 37.751, not 37.750999450683594.
        Ok(Part { number: number.to_string().parse().ok(), ..Part::default() })
    }

    fn visit_f64<E>(self, number: f64) -> Result<Part<'de>, E> {
        Ok(Part { number: number.is_finite().then_some(number), ..Part::default() })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_i32<E>(self, _: i32) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_u128<E>(self, _: u128) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Part<'de>, E> {
        Ok(Part::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Part<'de>, A::Error> {
        let first = list.next_element::<Part<'de>>()?.unwrap_or_default();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part<'de>, A::Error> {
        let mut part = Part::default();
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "names" | "en" => part.text = map.next_value::<Part<'de>>()?.text,
                "iso_code" | "code" => part.code = map.next_value::<Part<'de>>()?.text,
                "latitude" => part.lat = map.next_value::<Part<'de>>()?.number,
                "longitude" => part.lon = map.next_value::<Part<'de>>()?.number,
                "time_zone" => part.zone = map.next_value::<Part<'de>>()?.text,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(part)
    }
}
