//! Where an address is.

/// Database of places.
pub struct GeoDb {}
