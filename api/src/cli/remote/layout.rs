//! Lays out a table: columns with two spaces between them, whole or fitted to a terminal's width. Pure.

use console::{measure_text_width, truncate_str};

/// Spaces between two columns.
const GAP: usize = 2;
/// Spaces before what stands below its row.
const INDENT: usize = 4;
/// The most of a cell that is shown below its row, in columns of the terminal.
const MOST: usize = 800;
/// The least width in which words are wrapped.
const LEAST: usize = 8;

/// The text of a table, a line for the heading and one for each row. With `width` those columns stand in the row, from the
/// left, for which there is place; of the others the first `needed` of all stand below each row, wrapped, and a last line
/// names the rest.
pub(super) fn table(
    heading: &[String],
    needed: usize,
    rows: &[Vec<String>],
    width: Option<usize>,
) -> String {
    let natural: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.chain([&heading[column]]).map(|cell| measure_text_width(cell)).max().unwrap_or(0)
        })
        .collect();
    let in_row = match width {
        None => vec![true; heading.len()],
        Some(width) => fitted(&natural, width),
    };
    let most = width.unwrap_or(usize::MAX);
    let mut text = line(heading, &natural, &in_row, most);
    for row in rows {
        text += &line(row, &natural, &in_row, most);
        let below = heading.iter().zip(row).zip(&in_row).take(needed);
        let below = below.filter(|((_, cell), in_row)| !**in_row && !cell.is_empty());
        let below: Vec<String> = below
            .map(|((name, cell), _)| {
                let cut = truncate_str(cell, MOST, "… (--wide prints all)");
                format!("{}: {cut}", name.to_lowercase())
            })
            .collect();
        for line in wrapped(&below.join("  "), most.saturating_sub(INDENT)) {
            text.extend(std::iter::repeat_n(' ', INDENT));
            text += line.trim_end();
            text.push('\n');
        }
    }
    let left_out: Vec<&str> = heading
        .iter()
        .zip(&in_row)
        .skip(needed)
        .filter_map(|(name, in_row)| (!in_row).then_some(name.as_str()))
        .collect();
    if !left_out.is_empty() {
        let told = format!("(no place for {}; --wide prints them)", left_out.join(", "));
        for line in wrapped(&told, most) {
            text += line.trim_end();
            text.push('\n');
        }
    }
    text
}

/// The cells of a row that stand side by side.
fn line(row: &[String], widths: &[usize], in_row: &[bool], most: usize) -> String {
    let mut line = String::new();
    for ((cell, &width), _) in row.iter().zip(widths).zip(in_row).filter(|(_, in_row)| **in_row) {
        let cell = truncate_str(cell, width.min(most), "…");
        let pad = width.saturating_sub(measure_text_width(&cell)) + GAP;
        line += &cell;
        line.extend(std::iter::repeat_n(' ', pad));
    }
    format!("{}\n", line.trim_end())
}

/// Returns the columns for which there is room, the first in any case.
fn fitted(natural: &[usize], total: usize) -> Vec<bool> {
    let mut taken = 0;
    let place = |(at, &width): (usize, &usize)| {
        let with = taken + width + if at > 0 { GAP } else { 0 };
        let fits = at == 0 || with <= total;
        taken = if fits { with } else { taken };
        fits
    };
    natural.iter().enumerate().map(place).collect()
}

/// The text in lines of at most `width` columns, broken at spaces and commas, and within words that are longer.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(LEAST);
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0);
    for word in text.split_inclusive([' ', ',']) {
        let long = measure_text_width(word.trim_end());
        if taken > 0 && taken + long > width {
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        if long <= width {
            line += word;
            taken += measure_text_width(word);
            continue;
        }
        for part in word.chars() {
            let part_width = measure_text_width(part.encode_utf8(&mut [0; 4]));
            if taken + part_width > width {
                lines.push(std::mem::take(&mut line));
                taken = 0;
            }
            line.push(part);
            taken += part_width;
        }
    }
    if !line.trim().is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    const MESSAGE: &str =
        "the bank said that the card is no good, and that it was no good before either";

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn without_a_width_every_cell_is_whole() {
        let long = "x".repeat(3_000);
        let text = table(&row(&["ID", "MESSAGE"]), 1, &[row(&[ID, &long])], None);
        assert_eq!(text, format!("{:36}  MESSAGE\n{ID}  {long}\n", "ID"));
    }

    #[test]
    fn what_has_no_place_in_the_row_stands_below_it_whole() {
        let rows = [row(&[ID, MESSAGE, "failed"]), row(&[ID, "", "done"])];
        let text = table(&row(&["ID", "MESSAGE", "STATE"]), 3, &rows, Some(80));
        let expected = [
            "ID                                    STATE",
            "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11  failed",
            "    message: the bank said that the card is no good, and that it was no good",
            "    before either",
            "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11  done",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let wide = table(&row(&["ID", "MESSAGE", "STATE"]), 3, &rows, Some(200));
        assert_eq!(wide, table(&row(&["ID", "MESSAGE", "STATE"]), 3, &rows, None));
    }

    #[test]
    fn columns_that_need_not_be_seen_are_left_out_and_named() {
        let rows = [row(&[ID, "order", "2026-03-05T12:30:15.250Z", "2026-03-05T12:30:16.250Z"])];
        let heading = row(&["ID", "WORKFLOW", "STARTED_AT", "ENDED_AT"]);
        let text = table(&heading, 3, &rows, Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        assert!(text.contains("12:30:15.250Z\n") && !text.contains("12:30:16"), "{text}");
        assert!(text.ends_with("(no place for ENDED_AT; --wide prints them)\n"), "{text}");
        let tiny = table(&heading, 3, &rows, Some(10));
        assert!(tiny.lines().take(2).all(|line| measure_text_width(line) <= 10), "{tiny}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_the_cells_are() {
        let long = "y".repeat(500);
        for text in [MESSAGE, &long, "a  b   c", " ", "東京都東京都東京都東京都 東京都"]
        {
            for width in [20, 40, 79, 80] {
                let drawn = table(&row(&["N", "TEXT"]), 2, &[row(&["1", text])], Some(width));
                assert!(drawn.lines().all(|line| measure_text_width(line) <= width), "{drawn}");
                let words = |text: &str| text.split_whitespace().collect::<String>();
                assert!(words(&drawn).contains(&words(text)), "{drawn}");
            }
        }
    }

    #[test]
    fn a_document_without_end_is_cut_and_says_how_to_see_all() {
        let rows = [row(&[ID, &"word ".repeat(1_000)])];
        let text = table(&row(&["ID", "ABOUT"]), 2, &rows, Some(80));
        assert!(text.lines().count() < 15, "{text}");
        assert!(text.ends_with("(--wide prints all)\n"), "{text}");
    }

    #[test]
    fn characters_of_two_columns_count_twice() {
        let rows = [row(&["東京都", "1"]), row(&["a", "2"])];
        let text = table(&row(&["名前", "N"]), 2, &rows, None);
        assert_eq!(text, "名前    N\n東京都  1\na       2\n");
    }
}
