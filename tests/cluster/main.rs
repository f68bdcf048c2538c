//! Several gateways that count in one PostgreSQL database: each limit is exact over all of them, also while processes,
//! connections and the server fail.
//!
//! `TOWER_QUOTA_CLUSTER_RUNS`, `TOWER_QUOTA_CLUSTER_SECONDS` and `TOWER_QUOTA_CLUSTER_PAUSES` make the tests longer; `TOWER_QUOTA_SEED`
//! repeats the choices of a run.

#[path = "../common/mod.rs"]
mod common;

mod balancer;
mod connections;
mod exactness;
mod faults;
mod invariants;
mod journal;
mod lost_records;
mod nodes;
mod paused_node;
mod rolling_restart;
mod upstream;
