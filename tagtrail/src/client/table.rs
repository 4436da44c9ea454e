//! Tables that fit the screen: long names are cut in the middle, and sentences wrap.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Width, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

use super::print::clean;
use super::screen::Screen;

/// Columns between two columns of a table.
const GAP: usize = 2;
/// Least width to which a column is cut or wrapped.
const LEAST: usize = 6;

/// A column of a table.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    fit: Fit,
    /// Set for a column that only wide tables have.
    only_wide: bool,
    /// The width, if it does not depend on the rows.
    fixed: Option<usize>,
}

/// How a column becomes narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Not at all.
    Whole,
    /// Not at all. The known words have colours.
    State,
    /// The middle of a long text is cut: names differ at the end, and begin with the registry.
    Name,
    /// A long text wraps.
    Text,
}

impl Column {
    fn new(name: impl Into<String>, fit: Fit) -> Column {
        Column {
            name: name.into(),
            fit,
            only_wide: false,
            fixed: None,
        }
    }

    /// A column of numbers, times and short words.
    pub(crate) fn whole(name: impl Into<String>) -> Column {
        Column::new(name, Fit::Whole)
    }

    /// A column of states.
    pub(crate) fn state(name: impl Into<String>) -> Column {
        Column::new(name, Fit::State)
    }

    /// A column of names.
    pub(crate) fn name(name: impl Into<String>) -> Column {
        Column::new(name, Fit::Name)
    }

    /// A column of sentences, or of lists.
    pub(crate) fn text(name: impl Into<String>) -> Column {
        Column::new(name, Fit::Text)
    }

    /// Leaves the column out of tables that fit the screen.
    pub(crate) fn only_wide(self) -> Column {
        Column {
            only_wide: true,
            ..self
        }
    }

    /// Makes the column as wide as given, so that tables of single rows have the same columns.
    pub(crate) fn fixed(self, width: usize) -> Column {
        Column {
            fixed: Some(width),
            ..self
        }
    }
}

/// Formats a table with a header line.
pub(crate) fn table<const N: usize>(
    screen: &Screen,
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    format(screen, &columns, &rows, true)
}

/// Formats a table whose columns are known at run time, with a header line. Each row has as many
/// cells as there are columns. `None`: the columns don't fit the screen.
pub(crate) fn table_of(
    screen: &Screen,
    columns: &[Column],
    rows: &[Vec<String>],
) -> Option<String> {
    let texts: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.iter().map(String::as_str).collect())
        .collect();
    let widths = widths(screen.width, &columns.iter().collect::<Vec<_>>(), &texts);
    let width = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let fits = screen.width.is_none_or(|room| width <= usize::from(room));
    fits.then(|| format(screen, columns, rows, true))
}

/// Formats names with their values, a line for each.
pub(crate) fn pairs(screen: &Screen, pairs: impl IntoIterator<Item = [String; 2]>) -> String {
    let rows: Vec<Vec<String>> = pairs.into_iter().map(Vec::from).collect();
    format(screen, &[Column::whole(""), Column::text("")], &rows, false)
}

/// Formats a row of a table without the header line.
pub(crate) fn row<const N: usize>(
    screen: &Screen,
    columns: &[Column; N],
    row: [String; N],
) -> String {
    format(screen, columns, &[Vec::from(row)], false)
}

fn format(screen: &Screen, columns: &[Column], rows: &[Vec<String>], header: bool) -> String {
    let shown = |column: &Column| !column.only_wide || screen.width.is_none();
    let places: Vec<usize> = (0..columns.len())
        .filter(|place| shown(&columns[*place]))
        .collect();
    let columns: Vec<&Column> = places.iter().map(|place| &columns[*place]).collect();
    let rows: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| places.iter().map(|place| row[*place].as_str()).collect())
        .collect();
    let widths = widths(screen.width, &columns, &rows);
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(
            u16::try_from(widths.iter().sum::<usize>() + GAP * (widths.len() - 1))
                .unwrap_or(u16::MAX),
        );
    match screen.colour {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    if header {
        let bold = |column: &&Column| Cell::new(&column.name).add_attribute(Attribute::Bold);
        table.set_header(columns.iter().map(bold));
    }
    for row in &rows {
        let cells = columns.iter().zip(row).zip(&widths);
        table.add_row(cells.map(|((column, text), width)| cell(column.fit, text, *width)));
    }
    for (place, (column, width)) in table.column_iter_mut().zip(&widths).enumerate() {
        // Blanks of a coloured cell can't be trimmed, so the last column has no gap.
        let gap = if place + 1 == widths.len() { 0 } else { GAP };
        column.set_padding((0, u16::try_from(gap).unwrap_or_default()));
        let width = u16::try_from(width + gap).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn cell(fit: Fit, text: &str, width: usize) -> Cell {
    let clean = clean(text);
    match fit {
        Fit::Name => Cell::new(cut(&clean, width)),
        Fit::State => match colour(&clean) {
            Some(colour) => Cell::new(clean).fg(colour),
            None => Cell::new(clean),
        },
        Fit::Whole | Fit::Text => Cell::new(clean),
    }
}

/// The colour of a state.
fn colour(state: &str) -> Option<Color> {
    match state.split([' ', ',']).next()? {
        "ok" | "active" | "succeeded" | "created" | "recreated" => Some(Color::Green),
        "warning" | "paused" | "running" | "retrying" | "reverted" => Some(Color::Yellow),
        "error" | "failed" | "deleted" | "lost" => Some(Color::Red),
        "superseded" => Some(Color::DarkGrey),
        _ => None,
    }
}

/// Returns the width of each column. Columns that can be cut or wrapped share the room that the
/// others leave: each has the same, except columns that need less.
fn widths(screen: Option<u16>, columns: &[&Column], rows: &[Vec<&str>]) -> Vec<usize> {
    let mut widths: Vec<usize> = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        let cells = rows.iter().map(|row| row[place].width());
        let needed = cells.max().unwrap_or(0).max(column.name.width());
        widths.push(match (column.fixed, screen) {
            (Some(fixed), Some(_)) => fixed,
            (Some(fixed), None) => needed.max(fixed),
            (None, _) => needed,
        });
    }
    let Some(screen) = screen else { return widths };
    let gaps = GAP * columns.len().saturating_sub(1);
    let mut open: Vec<usize> = (0..columns.len())
        .filter(|place| matches!(columns[*place].fit, Fit::Name | Fit::Text))
        .filter(|place| columns[*place].fixed.is_none())
        .collect();
    let taken: usize = (0..columns.len())
        .filter(|place| !open.contains(place))
        .map(|place| widths[place])
        .sum();
    let mut room = usize::from(screen).saturating_sub(taken + gaps);
    // The columns that need least come first.
    open.sort_by_key(|place| widths[*place]);
    for (done, place) in open.iter().enumerate() {
        let share = room / (open.len() - done);
        let least = LEAST.max(columns[*place].name.width());
        widths[*place] = widths[*place].min(share.max(least));
        room = room.saturating_sub(widths[*place]);
    }
    widths
}

/// Cuts the middle of a text that is longer than `width`. Two thirds of the room are for the end,
/// where the tag is.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let take = |letters: &mut dyn Iterator<Item = char>, room: usize| {
        let mut taken = (Vec::new(), 0);
        for letter in letters {
            let wide = letter.width().unwrap_or(0);
            if taken.1 + wide > room {
                break;
            }
            taken.0.push(letter);
            taken.1 += wide;
        }
        taken.0
    };
    let start = take(&mut text.chars(), room / 3);
    let mut end = take(&mut text.chars().rev(), room - room / 3);
    end.reverse();
    start.into_iter().chain(['…']).chain(end).collect()
}

/// Cuts the end of a sentence that has more than `most` columns, between two words.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    for word in text.split_whitespace() {
        // Room for a blank and the mark.
        if short.width() + word.width() + 3 > most {
            break;
        }
        short += word;
        short.push(' ');
    }
    short.push('…');
    short
}

/// Wraps a sentence at the width of the screen, with this many blanks before each line.
pub(crate) fn wrap(screen: &Screen, text: &str, indent: usize) -> String {
    let room = screen.width.map_or(usize::MAX, |width| {
        usize::from(width).saturating_sub(indent).max(LEAST)
    });
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let open = lines.last_mut();
        match open.filter(|line| line.width() + 1 + word.width() <= room) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(cut(word, room)),
        }
    }
    let blanks = " ".repeat(indent);
    let lines = lines.iter().map(|line| format!("{blanks}{line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Wraps the lines of a text between words, at the width of a terminal. The rest of a line has
/// `indent` blanks more than its beginning. Without a width lines stay whole, for programs; words
/// stay whole in any case, so that people can copy names.
pub(crate) fn fold(text: &str, width: Option<u16>, indent: usize) -> String {
    let Some(width) = width.map(usize::from) else {
        return text.to_owned();
    };
    let lines = text.split('\n').map(|line| fold_line(line, width, indent));
    lines.collect::<Vec<_>>().join("\n")
}

fn fold_line(line: &str, width: usize, indent: usize) -> String {
    if line.width() <= width {
        return line.to_owned();
    }
    let words = line.trim_start();
    let blanks = line.len() - words.len();
    let mut folded = line[..blanks].to_owned();
    let (mut column, mut begun) = (blanks, false);
    for word in words.split(' ') {
        if begun && column + 1 + word.width() > width {
            folded.push('\n');
            column = blanks + indent;
            folded += &" ".repeat(column);
        } else if begun {
            folded.push(' ');
            column += 1;
        }
        folded += word;
        column += word.width();
        begun = true;
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::{screen, wide};
    use super::*;

    fn columns() -> [Column; 4] {
        [
            Column::name("IMAGE"),
            Column::state("STATE"),
            Column::whole("BYTES").only_wide(),
            Column::text("REASON"),
        ]
    }

    fn long() -> [String; 4] {
        [
            format!("registry.example.com/{}web:latest", "shop/".repeat(30)),
            "failed".to_owned(),
            "12".to_owned(),
            "no answer from the target ".repeat(8),
        ]
    }

    #[test]
    fn a_table_is_as_wide_as_the_screen_at_most() {
        for width in [40, 80, 81, 120, 200] {
            for colour in [false, true] {
                let screen = Screen {
                    colour,
                    ..screen(width)
                };
                let text = without_colours(&table(&screen, columns(), [long(), long()]));
                let widest = text.lines().map(UnicodeWidthStr::width).max();
                assert!(widest <= Some(width.into()), "{width}:\n{text}");
                assert!(widest > Some(usize::from(width) - 12), "{width}:\n{text}");
                assert!(text.contains(":latest") && text.contains("regi"), "{text}");
                assert_eq!(text.matches("target").count(), 16, "{text}");
            }
        }
    }

    fn without_colours(text: &str) -> String {
        let mut parts = text.split('\u{1b}');
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').unwrap().1)
    }

    #[test]
    fn a_wide_table_is_whole() {
        let text = table(&wide(), columns(), [long()]);
        assert_eq!(text.lines().count(), 2);
        for cell in long() {
            assert!(text.contains(cell.trim()), "{cell} is not in\n{text}");
        }
        assert!(!table(&screen(200), columns(), [long()]).contains("BYTES"));
    }

    #[test]
    fn lines_fold_between_words_on_a_terminal() {
        let text =
            "good\n  trigger shop: rolls out registry.example.com/shop/web:latest by webhook";
        let folded = "good\n  trigger shop:\n    rolls out\n    registry.example.com/shop/web:latest\n    by webhook";
        assert_eq!(fold(text, Some(20), 2), folded);
        assert_eq!(fold(text, Some(80), 2), text);
        assert_eq!(fold(text, None, 2), text);
    }

    #[test]
    fn a_name_is_cut_in_the_middle() {
        for (name, width, expected) in [
            (
                "registry.example.com/shop/web:latest",
                20,
                "regist…op/web:latest",
            ),
            (
                "registry.example.com/shop/web:latest",
                36,
                "registry.example.com/shop/web:latest",
            ),
            ("漢字漢字漢字漢字", 9, "漢…字漢字"),
            ("name", 1, "…"),
        ] {
            let cut = cut(name, width);
            assert_eq!(cut, expected);
            assert!(cut.width() <= width);
        }
    }

    #[test]
    fn columns_that_need_little_leave_their_room_to_others() {
        let short = [
            "a".to_owned(),
            "ok".to_owned(),
            String::new(),
            "x".repeat(60),
        ];
        let text = table(&screen(80), columns(), [short]);
        assert!(text.contains(&"x".repeat(60)), "{text}");
    }

    #[test]
    fn known_states_have_colours_where_colour_is_wanted() {
        let plain = table(&screen(80), columns(), [long()]);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let colourful = Screen {
            colour: true,
            ..screen(80)
        };
        let text = table(&colourful, columns(), [long()]);
        assert!(text.contains("\u{1b}[38;5;9mfailed"), "{text:?}");
        let hostile = ["\u{1b}[2Jx", "a", "", "\u{7}"].map(str::to_owned);
        let text = table(&screen(80), columns(), [hostile]);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }

    #[test]
    fn rows_of_fixed_columns_are_aligned() {
        let columns = [
            Column::name("IMAGE").fixed(20),
            Column::whole("KIND").fixed(6),
        ];
        let rows = ["short", "registry.example.com/shop/web:latest"].map(|image| {
            row(
                &screen(80),
                &columns,
                [image.to_owned(), "moved".to_owned()],
            )
        });
        let places = rows.map(|row| row.split("moved").next().map(UnicodeWidthStr::width));
        assert_eq!(places, [Some(22); 2]);
    }

    #[test]
    fn sentences_wrap_with_an_indent() {
        assert_eq!(
            wrap(&screen(20), "one two three four five", 4),
            "    one two three\n    four five"
        );
        assert_eq!(wrap(&wide(), "one  two", 2), "  one two");
    }
}
