//! Pages of lists: bounded by the number of elements, and by their size in bytes.

use std::io;

use backstitch_saga::protocol::Page;
use serde::Serialize;

/// Approximate size of a response, in bytes. It always has one element, whatever its size.
pub(crate) const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// The rest of the space in a response.
pub(crate) struct Budget {
    left: usize,
    begun: bool,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: ANSWER_BYTES, begun: false }
    }
}

impl Budget {
    /// Returns whether `element` is still to be answered, and counts it.
    pub(crate) fn takes<T: Serialize>(&mut self, element: &T) -> bool {
        let mut count = Count(0);
        // A count never fails, and a value without JSON form is reported when it is printed.
        serde_json::to_writer(&mut count, element).unwrap_or_default();
        self.takes_bytes(count.0)
    }

    /// Does the same for an element of so many bytes.
    pub(crate) fn takes_bytes(&mut self, bytes: usize) -> bool {
        let takes = !self.begun || bytes <= self.left;
        self.begun = true;
        self.left = if takes { self.left.saturating_sub(bytes) } else { 0 };
        takes
    }
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the page of `found`, for which one more than `limit` was read: the elements that fit into a response, and
/// the cursor of the last of them if there are more.
pub(crate) fn page<T: Serialize>(
    mut found: Vec<T>,
    limit: usize,
    cursor: impl Fn(&T) -> String,
) -> Page<T> {
    let mut budget = Budget::default();
    let fitting = found.iter().take(limit).take_while(|element| budget.takes(*element)).count();
    let more = found.len() > fitting;
    found.truncate(fitting);
    let next = found.last().filter(|_| more).map(cursor);
    Page { items: found, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_it_is_full_and_has_one_element_at_least() {
        let of = |sizes: &[usize], limit| {
            let found: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let page = page(found, limit, |last| last.len().to_string());
            (page.items.len(), page.next)
        };
        let (third, large) = (ANSWER_BYTES / 3, ANSWER_BYTES + 1);
        assert_eq!(of(&[], 10), (0, None));
        assert_eq!(of(&[1, 2, 3], 10), (3, None));
        assert_eq!(of(&[1, 2, 3], 2), (2, Some("2".to_owned())));
        assert_eq!(of(&[third, third, third], 10), (2, Some(third.to_string())));
        assert_eq!(of(&[large, 1], 10), (1, Some(large.to_string())));
        assert_eq!(of(&[1, large, 1], 10), (1, Some("1".to_owned())));
        assert_eq!(of(&[large], 10), (1, None));
    }
}
