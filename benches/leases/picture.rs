//! The picture of the sweep, drawn from its table in docs/scaling.md.

#[path = "../common/chart.rs"]
mod chart;

use self::chart::{Chart, Line, Panel};

/// Draws the table whose rows are numbers of nodes. Its columns are `<limit> <spread>`.
pub(crate) fn draw(document: &str) -> Option<String> {
    let mut rows = document.lines().skip_while(|line| !line.starts_with("| nodes |")).map(cells);
    let header = rows.next()?;
    // After the row that aligns the columns.
    let rows: Vec<Vec<&str>> =
        rows.skip(1).take_while(|cells| cells.len() == header.len()).collect();
    let mut panels: Vec<Panel> = Vec::new();
    for (column, name) in header.iter().enumerate().skip(1) {
        let (limit, name) = name.split_once(' ')?;
        let point = |row: &Vec<&str>| Some((number(row[0])?, number(row[column])?));
        let points = rows.iter().map(point).collect::<Option<Vec<_>>>()?;
        let line = Line { name: name.to_owned(), points };
        let title = format!("limit {limit}");
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.lines.push(line),
            None => panels.push(Panel { title, lines: vec![line] }),
        }
    }
    let title = "Trips to the database for each key and day, simulated";
    Some(Chart { title, x_label: "nodes", panels }.svg())
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

fn number(cell: &str) -> Option<f64> {
    cell.replace(',', "").parse().ok()
}
