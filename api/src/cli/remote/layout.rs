//! Lays out a table: columns with two spaces between them, whole or fitted to a terminal's width. Pure.

use console::{measure_text_width, truncate_str};

/// Spaces between two columns.
const GAP: usize = 2;
/// The least width of a column that is cut.
const LEAST: usize = 12;
/// A column whose cells are single words of at most this width is never cut: half an id or an instant is of no use.
const WORD: usize = 40;

/// The text of a table, a line for the heading and one for each row. With `width` long cells are cut to it; columns for
/// which there is no place even so are left out from the right, and a last line names them.
pub(super) fn table(heading: &[String], rows: &[Vec<String>], width: Option<usize>) -> String {
    let natural: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.chain([&heading[column]]).map(|cell| measure_text_width(cell)).max().unwrap_or(0)
        })
        .collect();
    let widths = match width {
        None => natural,
        Some(width) => {
            let words = (0..heading.len()).map(|column| is_of_words(rows, column)).collect();
            fitted(natural, words, width)
        }
    };
    let mut text = String::new();
    for row in std::iter::once(heading).chain(rows.iter().map(Vec::as_slice)) {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let cell = truncate_str(cell, width, "…");
            let pad = width.saturating_sub(measure_text_width(&cell)) + GAP;
            line += &cell;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text += line.trim_end();
        text.push('\n');
    }
    if widths.len() < heading.len() {
        let left_out = heading[widths.len()..].join(", ");
        text += &format!("(no place for {left_out}; --wide prints them)\n");
    }
    text
}

fn is_of_words(rows: &[Vec<String>], column: usize) -> bool {
    let mut cells = rows.iter().filter_map(|row| row.get(column));
    cells.all(|cell| !cell.contains(' ') && measure_text_width(cell) <= WORD)
}

/// The widths of as many columns, from the left, as there is place for.
fn fitted(mut widths: Vec<usize>, mut words: Vec<bool>, total: usize) -> Vec<usize> {
    loop {
        let capped = |cap: usize| {
            let capped = widths.iter().zip(&words);
            capped.map(move |(&width, &word)| if word { width } else { width.min(cap) })
        };
        let whole = |cap: usize| capped(cap).sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let most = widths.iter().copied().max().unwrap_or(0).max(LEAST);
        // Each wider cap needs more place, so the widest that fits is found by halving.
        if whole(LEAST) <= total {
            let (mut fits, mut beyond) = (LEAST, most + 1);
            while beyond - fits > 1 {
                let middle = usize::midpoint(fits, beyond);
                if whole(middle) <= total { fits = middle } else { beyond = middle }
            }
            return capped(fits).collect();
        }
        if widths.len() <= 1 {
            return widths.iter().map(|&width| width.min(total.max(1))).collect();
        }
        widths.pop();
        words.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn without_a_width_every_cell_is_whole() {
        let long = "x".repeat(300);
        let text = table(&row(&["ID", "MESSAGE"]), &[row(&[ID, &long])], None);
        assert_eq!(text, format!("{:36}  MESSAGE\n{ID}  {long}\n", "ID"));
    }

    #[test]
    fn long_texts_are_cut_to_the_width_and_words_are_not() {
        let message =
            "the bank said that the card is no good, and that it was no good before either";
        let rows = [row(&[ID, message, "failed"])];
        for width in [60, 80, 100, 124] {
            let text = table(&row(&["ID", "MESSAGE", "STATE"]), &rows, Some(width));
            let line = text.lines().nth(1).unwrap();
            assert_eq!(
                measure_text_width(line),
                width.min(36 + 2 + message.len() + 2 + 6),
                "{text}"
            );
            assert!(line.starts_with(ID) && line.ends_with("failed"), "{text}");
        }
    }

    #[test]
    fn columns_without_a_place_are_left_out_and_named() {
        let rows = [row(&[ID, "order", "2026-03-05T12:30:15.250Z", "2026-03-05T12:30:16.250Z"])];
        let heading = row(&["ID", "WORKFLOW", "STARTED_AT", "ENDED_AT"]);
        let text = table(&heading, &rows, Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        assert!(text.contains("12:30:15.250Z\n") && !text.contains("12:30:16"), "{text}");
        assert!(text.ends_with("(no place for ENDED_AT; --wide prints them)\n"), "{text}");
        let tiny = table(&heading, &rows, Some(10));
        assert!(tiny.lines().take(2).all(|line| measure_text_width(line) <= 10), "{tiny}");
    }

    #[test]
    fn characters_of_two_columns_count_twice() {
        let text = table(&row(&["名前", "N"]), &[row(&["東京都", "1"]), row(&["a", "2"])], None);
        assert_eq!(text, "名前    N\n東京都  1\na       2\n");
    }
}
