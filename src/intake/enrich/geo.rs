//! Where in the world. One rule for every route and store (contract D-63): what was sent wins; then
//! the address; then the time zone, for the country only.
//!
//! Coordinates and postal code belong together: they are taken from the address only when the sender
//! gave no coordinates. Zero degrees is a place like any other.

use serde_json::Value;

use crate::event::Event;
use crate::geo::{Place, timezones};

/// Fills what is missing in `event.place` from what was `found` by address (nothing where geography
/// is off); the address itself is privacy's business.
pub(in super::super) fn apply(event: &mut Event, found: Place, has_regions: bool) {
    let place = &mut event.place;
    for (name, degrees, max) in [("lat", &mut place.lat, 90.0), ("lon", &mut place.lon, 180.0)] {
        // Out of range is of the wrong type: it is kept as a custom field.
        if let Some(outside) = degrees.take_if(|degrees| degrees.abs() > max) {
            event.params.insert(name.to_owned(), Value::from(outside));
        }
    }
    if place.lat.is_none() && place.lon.is_none() {
        (place.lat, place.lon) = (found.lat, found.lon);
        place.zip = place.zip.take().or(found.zip);
    }
    if has_regions {
        place.region = place.region.take().or(found.region);
        place.city = place.city.take().or(found.city);
    }
    let by_zone = || place.tz.as_deref().and_then(timezones::country).map(str::to_owned);
    place.country = place.country.take().or(found.country).or_else(by_zone);
    if let Some(country) = &mut place.country {
        country.make_ascii_uppercase();
    }
    for text in [&mut place.region, &mut place.city] {
        *text = text.take().map(|text| text.to_lowercase());
    }
}
