//! Tables of the documents, from which pictures are drawn.

use super::chart::{Line, Panel};

/// Returns the cells of the rows of the first table whose header begins so, the header first.
pub(crate) fn rows<'a>(document: &'a str, header: &str) -> Option<Vec<Vec<&'a str>>> {
    let mut rows = document.lines().skip_while(|line| !line.starts_with(header)).map(cells);
    let header = rows.next()?;
    let width = header.len();
    // After the row that aligns the columns.
    let others = rows.skip(1).take_while(|cells| cells.len() == width);
    Some(std::iter::once(header).chain(others).collect())
}

/// Returns the lines of a table whose first column is that of the x axis, and whose other columns are
/// `<panel> <line>`. Empty cells have no point.
pub(crate) fn panels(rows: &[Vec<&str>], title: impl Fn(&str) -> String) -> Option<Vec<Panel>> {
    let (header, rows) = rows.split_first()?;
    let mut panels: Vec<Panel> = Vec::new();
    for (column, name) in header.iter().enumerate().skip(1) {
        let (panel, name) = name.split_once(' ')?;
        let filled = rows.iter().filter(|row| !row[column].is_empty());
        let point = |row: &Vec<&str>| Some((number(row[0])?, number(row[column])?));
        let points = filled.map(point).collect::<Option<Vec<_>>>()?;
        let line = Line { name: name.to_owned(), points };
        let title = title(panel);
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.lines.push(line),
            None => panels.push(Panel { title, lines: vec![line] }),
        }
    }
    Some(panels)
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Returns the number of a cell, which may have separators of thousands.
pub(crate) fn number(cell: &str) -> Option<f64> {
    cell.replace(',', "").parse().ok()
}
