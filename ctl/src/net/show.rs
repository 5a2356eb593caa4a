//! How views are shown: tables that fit the terminal, colours only on one, and JSON.

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::terminal;

/// What `-o` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON
    Json,
    /// A table with every column, cut nowhere
    Wide,
    /// A graph for mermaid (topology)
    Mermaid,
    /// A graph for Graphviz (topology)
    Dot,
}

/// How to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    output: Option<Output>,
    /// Columns of the terminal, if there is one.
    width: Option<usize>,
}

/// How a cell stands out on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Well.
    Good,
    /// To be looked at.
    Warn,
    /// Not well.
    Bad,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    heads: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
    /// Cells that are too long go on in the next line, where others are cut.
    wraps: bool,
}

/// Narrowest that a column is cut to.
const NARROWEST: usize = 8;
const GAP: usize = 3;
/// Between the items of a list in a cell.
const LIST: char = ',';
/// Between columns where room is scarce.
const NARROW_GAP: usize = 2;

// === impl Format ===

impl Format {
    /// For this process's output.
    pub fn new(output: Option<Output>) -> Self {
        Self {
            output,
            width: terminal::width(),
        }
    }

    /// What `-o` said.
    pub fn output(&self) -> Option<Output> {
        self.output
    }

    /// Prints a table, or what it stands for as JSON.
    pub fn print(&self, json: &impl Serialize, table: impl FnOnce() -> Table) -> Result<()> {
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(json)?),
            Some(Output::Mermaid | Output::Dot) => {
                bail!("only `peapod net topology` can be drawn; use -o json or -o wide")
            }
            Some(Output::Wide) => print!("{}", table().render(true, None, self.width.is_some())),
            None => print!(
                "{}",
                table().render(false, self.width, self.width.is_some())
            ),
        }
        Ok(())
    }

    /// Whether people read a table.
    pub fn is_table(&self) -> bool {
        matches!(self.output, None | Some(Output::Wide))
    }
}

// === impl Cell ===

impl Cell {
    /// A cell that stands out.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

// === impl Table ===

impl Table {
    /// A table with these columns; those that begin with `+` are shown with `-o wide` only.
    pub fn new(heads: &[&'static str]) -> Self {
        let heads = heads.iter().map(|head| match head.strip_prefix('+') {
            Some(head) => (head, true),
            None => (*head, false),
        });
        Self {
            heads: heads.collect(),
            rows: Vec::new(),
            wraps: false,
        }
    }

    /// A table of which nothing may be lost: what does not fit the terminal goes on in the next line,
    /// lists item by item.
    pub fn wrapping(heads: &[&'static str]) -> Self {
        Self {
            wraps: true,
            ..Self::new(heads)
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Lays it out: with every column if `wide`, cut to a width if there is one.
    pub fn render(&self, wide: bool, width: Option<usize>, colours: bool) -> String {
        if self.rows.is_empty() {
            return "nothing to show\n".to_owned();
        }
        // Where room is scarce a column that says nothing takes none.
        let says = |at: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(at));
            width.is_none() || cells.any(|cell| !cell.text.is_empty())
        };
        let shown: Vec<usize> = (0..self.heads.len())
            .filter(|&at| wide || (!self.heads[at].1 && says(at)))
            .collect();
        let (mut widths, mut gap) = fit(self.widths(&shown, whole), &[], width);
        let wraps = self.wraps && gap == NARROW_GAP;
        if wraps {
            let floors = self.widths(&shown, longest_word);
            (widths, gap) = fit(self.widths(&shown, longest_item), &floors, width);
        }
        let mut out = String::new();
        let heads = shown.iter().map(|&at| Cell::from(self.heads[at].0));
        line(&mut out, &heads.collect::<Vec<_>>(), (&widths, gap), false);
        for row in &self.rows {
            let cells = shown
                .iter()
                .map(|&at| row.get(at).cloned().unwrap_or_default());
            let cells: Vec<Cell> = cells.collect();
            let lines = match wraps {
                true => wrapped(&cells, &widths),
                false => vec![cells],
            };
            for cells in lines {
                line(&mut out, &cells, (&widths, gap), colours);
            }
        }
        out
    }

    /// What columns take, by what a cell does.
    fn widths(&self, shown: &[usize], of: fn(&str) -> usize) -> Vec<usize> {
        let column = |&at: &usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            let longest = cells.map(|cell| of(&cell.text)).max();
            longest.unwrap_or(0).max(self.heads[at].0.len())
        };
        shown.iter().map(column).collect()
    }
}

fn whole(text: &str) -> usize {
    text.chars().count()
}

fn longest_item(text: &str) -> usize {
    let items = text.split(LIST);
    items.map(|item| whole(item.trim())).max().unwrap_or(0)
}

/// The longest part that people would not break.
fn longest_word(text: &str) -> usize {
    let words = text.split([LIST, ' ']);
    let parts = words.flat_map(|word| word.split_inclusive(['-', '/']));
    parts.map(whole).max().unwrap_or(0)
}

/// A row as lines of cells, none wider than its column.
fn wrapped(cells: &[Cell], widths: &[usize]) -> Vec<Vec<Cell>> {
    let columns: Vec<Vec<String>> = cells
        .iter()
        .zip(widths)
        .map(|(cell, &width)| {
            let items = cell.text.split(LIST);
            items.flat_map(|item| pieces(item.trim(), width)).collect()
        })
        .collect();
    let lines = columns.iter().map(Vec::len).max().unwrap_or(0);
    let at = |line: usize| {
        let columns = columns.iter().zip(cells);
        let cell = |(lines, cell): (&Vec<String>, &Cell)| {
            let text = lines.get(line).cloned().unwrap_or_default();
            Cell::toned(text, cell.tone)
        };
        columns.map(cell).collect()
    };
    (0..lines).map(at).collect()
}

/// A text in pieces of a width: broken between words, or else where names and addresses have a joint.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let mut left: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    while left.len() > width.max(1) {
        let room = &left[..=width.max(1)];
        let space = room.iter().rposition(|&c| c == ' ').filter(|&at| at > 0);
        let joint = room[..width.max(1)]
            .iter()
            .rposition(|c| "-:./(".contains(*c))
            .map(|at| at + 1);
        let at = space.or(joint).unwrap_or(width.max(1));
        let rest = left.split_off(at);
        pieces.push(left.into_iter().collect::<String>().trim_end().to_owned());
        left = rest.into_iter().skip_while(|&c| c == ' ').collect();
    }
    pieces.push(left.into_iter().collect());
    pieces
}

/// Makes the gaps between columns smaller, then the widest columns narrower, until all fit: those
/// first that can be without cutting a word, by the `floors`.
fn fit(mut widths: Vec<usize>, floors: &[usize], limit: Option<usize>) -> (Vec<usize>, usize) {
    let total = |widths: &[usize], gap: usize| {
        widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1)
    };
    let Some(limit) = limit.filter(|&limit| total(&widths, GAP) > limit) else {
        return (widths, GAP);
    };
    for floors in [floors, &[]] {
        while total(&widths, NARROW_GAP) > limit {
            let floor = |at: usize| floors.get(at).copied().unwrap_or(0).max(NARROWEST);
            let columns = widths.iter_mut().enumerate();
            let wide = columns.filter(|(at, width)| **width > floor(*at));
            match wide.max_by_key(|(_, width)| **width) {
                Some((_, widest)) => *widest -= 1,
                None => break,
            }
        }
    }
    (widths, NARROW_GAP)
}

/// As much of a text as there is room for. Names and addresses differ at their ends.
fn cut(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let name = !text.contains(' ') && text.contains([':', '.', '/', '-']);
    let tail = if name { room / 2 } else { 0 };
    let (head, tail) = (&chars[..room - tail], &chars[chars.len() - tail..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

fn line(out: &mut String, cells: &[Cell], (widths, gap): (&[usize], usize), colours: bool) {
    let mut text = String::new();
    let last = cells.iter().rposition(|cell| !cell.text.is_empty());
    for (at, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let long = cell.text.chars().count();
        let shown = cut(&cell.text, width);
        let colour = match cell.tone {
            Tone::Plain => None,
            Tone::Good => Some("\x1b[32m"),
            Tone::Warn => Some("\x1b[33m"),
            Tone::Bad => Some("\x1b[31m"),
        };
        match colour.filter(|_| colours && !shown.is_empty()) {
            Some(colour) => text.push_str(&format!("{colour}{shown}\x1b[0m")),
            None => text.push_str(&shown),
        }
        if last.is_some_and(|last| at < last) {
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(long) + gap));
        }
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A time span as kubectl shows it.
pub fn age(seconds: i64) -> String {
    crate::client::human(seconds.max(0))
}

/// How long ago a time was.
pub fn since(time: &str, now: jiff::Timestamp) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(then) => age(now.duration_since(then).as_secs()),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "+EXTRA", "WHY"]);
        table.row(vec![
            "a".into(),
            Cell::toned("Established", Tone::Good),
            "x".into(),
            "a very long reason that does not fit".into(),
        ]);
        table.row(vec![
            "bbb".into(),
            Cell::toned("Idle", Tone::Bad),
            "y".into(),
            "".into(),
        ]);
        table
    }

    #[test]
    fn fits_the_terminal() {
        let text = table().render(false, Some(40), false);
        assert_eq!(
            text,
            "NAME  STATE        WHY\na     Established  a very long reason t…\nbbb   Idle\n"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
    }

    #[test]
    fn what_says_nothing_takes_no_room_and_names_keep_their_ends() {
        let mut table = Table::new(&["PREFIX", "BFD", "WHY"]);
        table.row(vec![
            "fd00:10:244:11::/64".into(),
            "".into(),
            "only path".into(),
        ]);
        assert_eq!(
            table.render(false, Some(24), false),
            "PREFIX         WHY\nfd00:1…1::/64  only path\n"
        );
        assert_eq!(
            table.render(false, None, false),
            "PREFIX                BFD   WHY\nfd00:10:244:11::/64         only path\n"
        );
    }

    #[test]
    fn what_wraps_loses_nothing() {
        let mut table = Table::wrapping(&["POD", "ADDRESSES", "WHY"]);
        table.row(vec![
            "web-7d9f8c6b5-abcde".into(),
            "10.244.1.5,fd00:10:244:11::5".into(),
            Cell::toned("Rescheduled: web-a on n1 was NodeLost", Tone::Good),
        ]);
        let text = table.render(false, Some(50), false);
        let lines = [
            ["POD", "ADDRESSES", "WHY"],
            ["web-7d9f8c6b5-", "10.244.1.5", "Rescheduled:"],
            ["abcde", "fd00:10:244:11::5", "web-a on n1"],
            ["", "", "was NodeLost"],
        ];
        let lines = lines.map(|[pod, address, why]| format!("{pod:<17}{address:<19}{why}\n"));
        assert_eq!(text, lines.concat());
        let whole = table.render(false, Some(120), false);
        assert!(whole.contains("10.244.1.5,fd00:10:244:11::5"), "{whole}");
        assert_eq!(pieces("aé-bb", 2), ["aé", "-", "bb"]);
        assert_eq!(pieces("", 5), [""]);
    }

    #[test]
    fn wide_cuts_nothing_and_pipes_have_no_colour() {
        let text = table().render(true, None, false);
        assert!(text.contains("EXTRA") && text.contains("that does not fit"));
        assert!(!text.contains('\x1b'));
        assert!(
            table()
                .render(true, None, true)
                .contains("\x1b[32mEstablished\x1b[0m")
        );
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(
            Table::new(&["A"]).render(false, None, false),
            "nothing to show\n"
        );
    }
}
