//! The table of units: the code of each, its dimension, and its exact factor to the base unit of the dimension.

/// Physical dimension of a unit. Units of one dimension can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Mass,
    Length,
    Area,
    Volume,
    Time,
    Count,
    Energy,
    Data,
}

/// A unit: `factor = numerator / denominator` base units of its dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The code, as it is spelt in quantities.
    pub code: &'static str,
    dimension: Dimension,
    numerator: i128,
    denominator: i128,
}

impl Unit {
    /// Returns the factor from this unit to `other` as a fraction; `None` if they measure different things.
    #[must_use]
    pub fn factor_to(self, other: Unit) -> Option<(i128, i128)> {
        if self.dimension != other.dimension {
            return None;
        }
        let numerator = self.numerator.checked_mul(other.denominator)?;
        let denominator = self.denominator.checked_mul(other.numerator)?;
        let common = greatest_common_divisor(numerator, denominator);
        Some((numerator / common, denominator / common))
    }
}

fn greatest_common_divisor(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Returns the unit of this code, exactly as it is spelt: no prefix is guessed, and capitals count.
#[must_use]
pub fn unit(code: &str) -> Option<Unit> {
    UNITS.iter().copied().find(|unit| unit.code == code)
}

/// Returns the codes of all units.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    UNITS.iter().map(|unit| unit.code)
}

const fn of(code: &'static str, dimension: Dimension, numerator: i128, denominator: i128) -> Unit {
    Unit { code, dimension, numerator, denominator }
}

use Dimension::{Area, Count, Data, Energy, Length, Mass, Time, Volume};

/// The pound, inch, foot, yard, mile and ounce are those of the agreement of 1959; gallons say whose they are.
const UNITS: &[Unit] = &[
    of("kg", Mass, 1, 1),
    of("g", Mass, 1, 1_000),
    of("mg", Mass, 1, 1_000_000),
    of("t", Mass, 1_000, 1),
    of("lb", Mass, 45_359_237, 100_000_000),
    of("oz", Mass, 45_359_237, 1_600_000_000),
    of("m", Length, 1, 1),
    of("km", Length, 1_000, 1),
    of("cm", Length, 1, 100),
    of("mm", Length, 1, 1_000),
    of("in", Length, 254, 10_000),
    of("ft", Length, 3_048, 10_000),
    of("yd", Length, 9_144, 10_000),
    of("mi", Length, 1_609_344, 1_000),
    of("m2", Area, 1, 1),
    of("cm2", Area, 1, 10_000),
    of("km2", Area, 1_000_000, 1),
    of("ha", Area, 10_000, 1),
    of("ft2", Area, 9_290_304, 100_000_000),
    of("l", Volume, 1, 1),
    of("ml", Volume, 1, 1_000),
    of("cl", Volume, 1, 100),
    of("hl", Volume, 100, 1),
    of("m3", Volume, 1_000, 1),
    of("gal_us", Volume, 3_785_411_784, 1_000_000_000),
    of("gal_uk", Volume, 454_609, 100_000),
    of("s", Time, 1, 1),
    of("ms", Time, 1, 1_000),
    of("min", Time, 60, 1),
    of("h", Time, 3_600, 1),
    of("d", Time, 86_400, 1),
    of("each", Count, 1, 1),
    of("pair", Count, 2, 1),
    of("dozen", Count, 12, 1),
    of("J", Energy, 1, 1),
    of("kJ", Energy, 1_000, 1),
    of("Wh", Energy, 3_600, 1),
    of("kWh", Energy, 3_600_000, 1),
    of("B", Data, 1, 1),
    of("kB", Data, 1_000, 1),
    of("MB", Data, 1_000_000, 1),
    of("GB", Data, 1_000_000_000, 1),
    of("KiB", Data, 1_024, 1),
    of("MiB", Data, 1_048_576, 1),
    of("GiB", Data, 1_073_741_824, 1),
];
