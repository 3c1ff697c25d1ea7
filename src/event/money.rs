//! An amount of money, exact to four decimals: what every store keeps as `decimal(18, 4)`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Ten-thousandths of a currency's unit; the currency stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(i64);

impl Money {
    /// Decimals that are kept.
    pub const SCALE: u32 = 4;
    /// Digits that are kept, decimals included.
    pub const PRECISION: u32 = 18;
    /// The largest number of ten-thousandths, and negative the smallest: 18 digits.
    pub const UNITS_MAX: i64 = 999_999_999_999_999_999;

    /// The amount of so many ten-thousandths; none beyond 18 digits.
    pub fn from_units(units: i128) -> Option<Self> {
        let units = i64::try_from(units).ok()?;
        (-Self::UNITS_MAX..=Self::UNITS_MAX).contains(&units).then_some(Self(units))
    }

    /// The amount in ten-thousandths.
    pub fn units(self) -> i64 {
        self.0
    }

    /// The same amount, owed the other way.
    pub fn given_back(self) -> Self {
        Self(-self.0.abs())
    }

    /// Below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, units) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:04}", units / 10_000, units % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_prints_with_all_its_decimals() {
        for (units, expect) in [
            (0, "0.0000"),
            (1, "0.0001"),
            (-1, "-0.0001"),
            (999_900, "99.9900"),
            (-1_234_567, "-123.4567"),
            (i128::from(Money::UNITS_MAX), "99999999999999.9999"),
        ] {
            assert_eq!(Money::from_units(units).unwrap().to_string(), expect);
        }
        assert_eq!(Money::from_units(i128::from(Money::UNITS_MAX) + 1), None);
        assert_eq!(Money::from_units(-i128::from(Money::UNITS_MAX) - 1), None);
        assert_eq!(Money(5).given_back(), Money(-5));
        assert_eq!(Money(-5).given_back(), Money(-5));
    }
}
