//! Formats of dates and times in the documents of sources: a subset of strftime that reads in one way only.

use std::fmt;

/// A format that was checked: every part of it is read in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat {
    text: String,
    has_time: bool,
    has_offset: bool,
}

/// Reason why a format is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Stable code.
    pub code: &'static str,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// The most bytes of a format.
pub(crate) const LONGEST: usize = 100;

impl DateFormat {
    /// Checks a format. Accepted are `%Y %m %d %e %b %B %j %H %I %p %M %S %.f %z %:z %%` and literal text.
    ///
    /// # Errors
    /// `two_digit_year` for `%y`, `format_not_supported` for other parts and for a format that leaves the day open.
    pub fn parse(text: &str) -> Result<DateFormat, FormatError> {
        let wrong = |message: String| FormatError { code: "format_not_supported", message };
        if text.is_empty() || text.len() > LONGEST {
            return Err(wrong(format!("a format has 1 to {LONGEST} bytes")));
        }
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                continue;
            }
            let part: String = match characters.next() {
                Some(special @ ('.' | ':')) => {
                    [Some(special), characters.next()].into_iter().flatten().collect()
                }
                Some(other) => other.to_string(),
                None => String::new(),
            };
            if part == "y" || part == "D" || part == "g" {
                return Err(FormatError {
                    code: "two_digit_year",
                    message: format!(
                        "'%{part}' reads a year of two digits, which is ambiguous; the source must send four (%Y)"
                    ),
                });
            }
            let known =
                ["Y", "m", "d", "e", "b", "B", "j", "H", "I", "p", "M", "S", ".f", "z", ":z", "%"];
            if !known.contains(&part.as_str()) {
                return Err(wrong(format!("'%{part}' is not one of %{}", known.join(" %"))));
            }
            if part != "%" && parts.contains(&part) {
                return Err(wrong(format!("'%{part}' stands twice")));
            }
            parts.push(part);
        }
        let has = |names: &[&str]| names.iter().any(|name| parts.iter().any(|part| part == name));
        let day = has(&["j"]) || (has(&["m", "b", "B"]) && has(&["d", "e"]));
        if !has(&["Y"]) || !day {
            return Err(wrong(
                "a format has a year (%Y), and a month and a day (or %j)".to_owned(),
            ));
        }
        if has(&["I"]) != has(&["p"]) || (has(&["I"]) && has(&["H"])) {
            return Err(wrong("hours are either %H, or %I with %p".to_owned()));
        }
        let has_time = has(&["H", "I"]);
        if has_time != has(&["M"]) || (has(&["S", ".f"]) && !has_time) {
            return Err(wrong("a time has hours and minutes".to_owned()));
        }
        let has_offset = has(&["z", ":z"]);
        if has_offset && !has_time {
            return Err(wrong("an offset belongs to a time".to_owned()));
        }
        Ok(DateFormat { text: text.to_owned(), has_time, has_offset })
    }

    /// Returns the format as text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether the format reads a time of day.
    #[must_use]
    pub fn has_time(&self) -> bool {
        self.has_time
    }

    /// Returns whether the format reads an offset from UTC, so that no zone is needed.
    #[must_use]
    pub fn has_offset(&self) -> bool {
        self.has_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_could_be_read_in_two_ways_is_refused() {
        for (format, code) in [
            ("%d/%m/%y", "two_digit_year"),
            ("%D", "two_digit_year"),
            ("%d/%m", "format_not_supported"),
            ("%Y-%m", "format_not_supported"),
            ("%Y-%m-%d %I:%M", "format_not_supported"),
            ("%Y-%m-%d %H", "format_not_supported"),
            ("%Y-%m-%d %z", "format_not_supported"),
            ("%Y-%m-%d %Z", "format_not_supported"),
            ("%Y-%m-%d %Y", "format_not_supported"),
            ("%s", "format_not_supported"),
            ("%Y-%m-%d%", "format_not_supported"),
            ("", "format_not_supported"),
        ] {
            assert_eq!(DateFormat::parse(format).unwrap_err().code, code, "{format}");
        }
        for format in
            ["%d.%m.%Y", "%Y%j", "%b %e, %Y %I:%M %p", "%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%d 100%%"]
        {
            DateFormat::parse(format).unwrap();
        }
    }
}
