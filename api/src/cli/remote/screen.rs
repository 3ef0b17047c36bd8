//! The terminal: its size, and drawing something anew in place. [`Screen`] is pure: sizes and texts in, what is to be
//! written out.

use std::io::IsTerminal;

use console::{Term, measure_text_width, truncate_str};

use crate::print::counted;

/// The width that tables keep to: that of the terminal. `None` in pipes and files, and with `--wide`.
pub(super) fn width(wide: bool) -> Option<usize> {
    if wide || !std::io::stdout().is_terminal() {
        return None;
    }
    size().map(|(_, columns)| columns)
}

/// Returns rows and columns of the terminal.
pub(super) fn size() -> Option<(usize, usize)> {
    let (rows, columns) = Term::stdout().size_checked()?;
    // A terminal that says nothing of itself, as in some containers.
    (rows > 0 && columns > 0).then_some((usize::from(rows), usize::from(columns)))
}

/// Something that is drawn over and over in the same place.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The width of each line that stands there.
    drawn: Vec<usize>,
}

impl Screen {
    /// Returns the output that replaces the text shown before by `text`. Lines are cut to the terminal's width, and
    /// to its height, so that no line takes two rows and the first one stays in sight.
    pub(super) fn redraw(&mut self, text: &str, rows: usize, columns: usize) -> String {
        let mut out = self.clear(rows, columns);
        let lines: Vec<&str> = text.lines().collect();
        // The cursor stands in the row below.
        let room = rows.saturating_sub(1).max(1);
        let shown = if lines.len() > room { room - 1 } else { lines.len() };
        let left = lines.len() - shown;
        let more = (left > 0).then(|| format!("… and {} more", counted(left, "line")));
        for line in lines[..shown].iter().copied().chain(more.as_deref()) {
            // The last column stays free: terminals differ in where the cursor is after it.
            let line = truncate_str(line, columns.saturating_sub(1).max(1), "…");
            self.drawn.push(measure_text_width(&line));
            out += &line;
            out.push('\n');
        }
        out
    }

    /// Returns the output after which the whole `text` is shown, however long it is.
    pub(super) fn finish(&mut self, text: &str, rows: usize, columns: usize) -> String {
        self.clear(rows, columns) + text
    }

    /// Takes away what stands there. The terminal may have another width than when it was drawn.
    fn clear(&mut self, rows: usize, columns: usize) -> String {
        let taken: usize =
            self.drawn.drain(..).map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        match taken {
            0 => "\x1b[0J".to_owned(),
            // The first row has left the screen.
            _ if taken >= rows => "\x1b[2J\x1b[H".to_owned(),
            _ => format!("\x1b[{taken}A\r\x1b[0J"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that knows as much as [`Screen`] needs.
    struct Terminal {
        rows: usize,
        columns: usize,
        lines: Vec<String>,
        row: usize,
        scrolled: Vec<String>,
    }

    impl Terminal {
        fn new(rows: usize, columns: usize) -> Terminal {
            let lines = vec![String::new(); rows];
            Terminal { rows, columns, lines, row: 0, scrolled: Vec::new() }
        }

        fn down(&mut self) {
            self.row += 1;
            if self.row == self.rows {
                self.scrolled.push(self.lines.remove(0));
                self.lines.push(String::new());
                self.row -= 1;
            }
        }

        fn write(&mut self, text: &str) {
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if let Some(code) = rest.strip_prefix("\x1b[") {
                    let end = code.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let number: usize = code[..end].parse().unwrap_or(1);
                    match &code[end..=end] {
                        "A" => self.row -= number,
                        "H" => self.row = 0,
                        "J" => {
                            let from = if number == 2 { 0 } else { self.row };
                            self.lines[from..].iter_mut().for_each(String::clear);
                        }
                        other => panic!("{other}"),
                    }
                    rest = &code[end + 1..];
                    continue;
                }
                match c {
                    '\n' => self.down(),
                    '\r' => {}
                    c => {
                        if measure_text_width(&self.lines[self.row]) == self.columns {
                            self.down();
                        }
                        let row = self.row;
                        self.lines[row].push(c);
                    }
                }
                rest = &rest[c.len_utf8()..];
            }
        }

        fn text(&self) -> String {
            self.lines.join("\n").trim_end().to_owned()
        }
    }

    fn frame(lines: usize, width: usize) -> String {
        (0..lines).map(|line| format!("{line} {}\n", "x".repeat(width))).collect()
    }

    #[test]
    fn lines_wider_than_the_terminal_are_drawn_over_and_not_below() {
        let mut terminal = Terminal::new(24, 80);
        let mut screen = Screen::default();
        terminal.write("$ backstitch run watch\n");
        for width in [70, 78, 79, 80, 81, 200, 10] {
            terminal.write(&screen.redraw(&frame(5, width), 24, 80));
            assert_eq!(terminal.text().lines().count(), 6, "{width}\n{}", terminal.text());
        }
        assert!(terminal.text().starts_with("$ backstitch"), "what stood above stays");
        assert_eq!(terminal.scrolled.len(), 0);
    }

    #[test]
    fn more_lines_than_the_terminal_has_are_cut_and_counted() {
        let mut terminal = Terminal::new(8, 80);
        let mut screen = Screen::default();
        for lines in [3, 30, 7, 8, 30] {
            terminal.write(&screen.redraw(&frame(lines, 20), 8, 80));
            let text = terminal.text();
            assert!(text.starts_with("0 x"), "{lines}: {text}");
            let more = lines > 7;
            assert_eq!(text.contains(" more"), more, "{lines}: {text}");
            assert_eq!(text.lines().count(), lines.min(7), "{lines}: {text}");
        }
        assert_eq!(terminal.scrolled.len(), 0);
        terminal.write(&screen.finish(&frame(30, 20), 8, 80));
        assert_eq!(terminal.scrolled.len(), 23, "in the end all of it is there");
        assert_eq!(terminal.scrolled[0], frame(1, 20).trim_end());
    }

    #[test]
    fn a_terminal_that_became_narrower_is_cleared() {
        let mut screen = Screen::default();
        screen.redraw(&frame(3, 60), 24, 80);
        let narrow = screen.redraw(&frame(3, 60), 24, 40);
        assert!(narrow.starts_with("\x1b[6A"), "each line took two rows: {narrow:?}");
        screen.redraw(&frame(3, 60), 24, 40);
        assert!(screen.redraw(&frame(3, 60), 2, 40).starts_with("\x1b[2J"));
    }

    #[test]
    fn the_smallest_terminal_is_enough_to_go_on() {
        let mut screen = Screen::default();
        for (rows, columns) in [(1, 1), (2, 1), (1, 80)] {
            assert!(screen.redraw(&frame(3, 60), rows, columns).contains('…'));
        }
    }
}
