//! What stores have in common, for those who write one: grouping and paging of reports.

mod report;

pub use self::report::{ReportBuilder, busiest_first};
