//! Nodes: the processes that count in one database.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// A process that counts in a database that several processes may share, or has counted there.
///
/// A node is its journal: a process that starts again with the same journal is the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeSummary {
    /// Short name of the node, at least 1.
    pub number: u32,
    /// Identity of the node's journal, in hexadecimal digits.
    pub id: String,
    /// State of the node.
    pub state: NodeState,
    /// Whether it is the process of this store.
    pub is_this: bool,
    /// Time at which the node connected last.
    pub entered_at: SystemTime,
    /// Time at which the database was last in contact with the node.
    pub seen_at: SystemTime,
    /// Number of units that the node may use in current periods without a call to the database, as far as the
    /// database knows. Those that the node has used since its last checkpoint are among them.
    pub leased_units: u64,
    /// Number of keys to which these units belong.
    pub leased_keys: u64,
    /// Number of requests that had begun and not ended at the last checkpoint.
    pub open_requests: u64,
    /// Number of journal records that the database does not have yet; `None` if only the node knows.
    pub pending_records: Option<u64>,
}

impl NodeSummary {
    /// Creates a node that holds nothing.
    pub fn new(number: u32, id: impl Into<String>, state: NodeState, seen_at: SystemTime) -> Self {
        Self {
            number,
            id: id.into(),
            state,
            is_this: false,
            entered_at: seen_at,
            seen_at,
            leased_units: 0,
            leased_keys: 0,
            open_requests: 0,
            pending_records: None,
        }
    }
}

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// Its process is connected, or was a few seconds ago.
    InUse,
    /// Its process is not connected and has not closed its journal: how much it has used is not known until it is
    /// back.
    Silent,
    /// Its journal is closed: the database has everything.
    Closed,
    /// It was given up, and its journal is no longer accepted.
    Released,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::InUse, Self::Silent, Self::Closed, Self::Released];

    /// Returns the stable name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Released => "released",
        }
    }
}

impl Serialize for NodeState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Outcome of giving up a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReleaseOutcome {
    /// The node is released. The summary says what it held until then.
    Released(Box<NodeSummary>),
    /// Nothing was done: only a silent node can be released, and this one is in another state.
    NotSilent(Box<NodeSummary>),
    /// There is no node with this number.
    UnknownNode,
}
