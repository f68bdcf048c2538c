//! The engine alone.
fn main() {}
