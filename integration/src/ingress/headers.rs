//! Headers of a request.

/// Headers of a request, with names in any case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [(&'a str, &'a [u8])]);

/// The most bytes of a header that is read.
pub(crate) const LONGEST: usize = 8_192;

impl<'a> Headers<'a> {
    /// Takes the headers of a request, in their order.
    #[must_use]
    pub fn new(headers: &'a [(&'a str, &'a [u8])]) -> Headers<'a> {
        Headers(headers)
    }

    /// Returns the value of a header that occurs once.
    ///
    /// # Errors
    /// `Err` when it stands more than once, is no text, or is too long: whoever reads it would read one of two things.
    pub fn once(&self, name: &str) -> Result<Option<&'a str>, NotOne> {
        let mut found = self.0.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let Some((_, value)) = found.next() else { return Ok(None) };
        if found.next().is_some() || value.len() > LONGEST {
            return Err(NotOne);
        }
        std::str::from_utf8(value).map(|text| Some(text.trim())).map_err(|_| NotOne)
    }
}

/// A header that cannot be read in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOne;
