//! Shares of a whole, counted exactly. A ratio is the decimal number that a person wrote: 0.29 of 100 is 29, although
//! the nearest binary fraction is a little less than 0.29.

/// Digits after the decimal point that count. A number that a person writes has fewer.
const PLACES: u32 = 20;

/// Returns the most of `total` that `ratio` allows, rounded down; all when the ratio is 1 or more, nothing when it is
/// negative.
#[must_use]
pub fn share(total: u32, ratio: f64) -> u32 {
    times(total, ratio).min(total)
}

/// Returns `count` times `factor`, rounded down; the largest number instead of an overflow, zero when it is
/// negative.
#[must_use]
pub fn times(count: u32, factor: f64) -> u32 {
    let (parts, whole) = exact(factor);
    let product = u128::from(count).saturating_mul(parts) / whole;
    u32::try_from(product).unwrap_or(u32::MAX)
}

/// Returns whether `part` of `total` is a share of `ratio` or more. A `total` of zero reaches every ratio.
#[must_use]
pub fn reaches(part: u64, total: u64, ratio: f64) -> bool {
    let (parts, whole) = exact(ratio);
    u128::from(part).saturating_mul(whole) >= u128::from(total).saturating_mul(parts)
}

/// Returns the fraction that the shortest decimal form of `ratio` says: numerator and denominator.
fn exact(ratio: f64) -> (u128, u128) {
    let whole = 10_u128.pow(PLACES);
    if ratio.is_nan() || ratio <= 0.0 {
        return (0, whole);
    }
    // The shortest text that is read as the same number; never in exponential form.
    let text = ratio.to_string();
    let (before, after) = text.split_once('.').unwrap_or((&text, ""));
    let digits = after.chars().chain(std::iter::repeat('0')).take(PLACES as usize);
    let number = before.chars().chain(digits).try_fold(0_u128, |number, digit| {
        number.checked_mul(10)?.checked_add(u128::from(digit.to_digit(10)?))
    });
    (number.unwrap_or(u128::MAX), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_the_decimal_number_as_written() {
        let cases = [
            (100, 0.29, 29),
            (100, 0.07, 7),
            (100, 0.57, 57),
            (30, 0.1, 3),
            (10, 0.7, 7),
            (1_000, 0.001, 1),
            (15, 0.1, 1),
            (3, 0.333_333, 0),
            (3, 1.0 / 3.0, 0),
            (7, 0.0, 0),
            (7, -0.5, 0),
            (7, f64::NAN, 0),
            (7, 1.0, 7),
            (7, 1.5, 7),
            (7, f64::INFINITY, 7),
            (1_000_000, 0.999_999, 999_999),
            (u32::MAX, 1e-300, 0),
            (0, 0.5, 0),
        ];
        for (total, ratio, expected) in cases {
            assert_eq!(share(total, ratio), expected, "{ratio} of {total}");
        }
    }

    #[test]
    fn a_multiple_is_exact_too() {
        for (count, factor, expected) in [
            (100, 1.1, 110),
            (60, 0.35, 21),
            (100, 0.29, 29),
            (60, 0.05, 3),
            (1, 100.0, 100),
            (u32::MAX, 2.0, u32::MAX),
            (5, -1.0, 0),
        ] {
            assert_eq!(times(count, factor), expected, "{count} times {factor}");
        }
    }

    #[test]
    fn every_share_in_hundredths_is_exact() {
        for hundredths in 0..=100_u32 {
            let ratio: f64 = format!("0.{hundredths:02}").parse().unwrap();
            let ratio = if hundredths == 100 { 1.0 } else { ratio };
            for total in 0..=300 {
                assert_eq!(share(total, ratio), total * hundredths / 100, "{ratio} of {total}");
                let reached = u64::from(share(total, ratio));
                assert!(!reaches(reached, u64::from(total) + 101, ratio) || hundredths == 0);
            }
        }
    }

    #[test]
    fn a_ratio_is_reached_by_exactly_its_share() {
        for (part, total, ratio, expected) in [
            (29, 100, 0.29, true),
            (28, 100, 0.29, false),
            (7, 100, 0.07, true),
            (3, 30, 0.1, true),
            (2, 30, 0.1, false),
            (1, 3, 0.333_333_333_333, true),
            (0, 10, 0.0, true),
            (10, 10, 1.0, true),
            (9, 10, 1.0, false),
        ] {
            assert_eq!(reaches(part, total, ratio), expected, "{part} of {total} at {ratio}");
        }
    }
}
