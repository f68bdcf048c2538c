//! Nodes: the processes that count in one database.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, Json, NoQuery, NodeNumber},
            error::AdminError,
            input::AcceptLoss,
            json::Timestamp,
            schema,
        },
        shared::Shared,
        store::{AdminStore, NodeState, NodeSummary, ReleaseOutcome},
    },
    error::catalog,
};

/// The nodes of the database.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Nodes {
    /// By number; empty if the store belongs to one process.
    nodes: Vec<Node>,
}

/// A process that counts in the database, or has counted there, known by its journal.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Node {
    number: u32,
    /// Identity of the node's journal.
    id: String,
    /// `in_use`: connected, or a few seconds ago. `silent`: gone without closing its journal. `closed`: the database has
    /// everything. `released`: given up.
    #[schemars(with = "schema::NodeState")]
    state: NodeState,
    /// Whether this process is the node.
    this_process: bool,
    /// Time at which it connected last.
    entered_at: Timestamp,
    /// Time of the database's last contact with it.
    seen_at: Timestamp,
    /// Units that it may use in current periods without a call to the database, as far as the database knows.
    leased_units: u64,
    /// Number of keys to which they belong.
    leased_keys: u64,
    /// Requests that had begun and not ended at its last checkpoint.
    open_requests: u64,
    /// Records of its journal that the database does not have yet; `null` if only the node knows.
    pending_records: Option<u64>,
}

impl From<NodeSummary> for Node {
    fn from(node: NodeSummary) -> Self {
        let NodeSummary {
            number,
            id,
            state,
            is_this,
            entered_at,
            seen_at,
            leased_units,
            leased_keys,
            open_requests,
            pending_records,
        } = node;
        Self {
            number,
            id,
            state,
            this_process: is_this,
            entered_at: Timestamp(entered_at),
            seen_at: Timestamp(seen_at),
            leased_units,
            leased_keys,
            open_requests,
            pending_records,
        }
    }
}

/// Consent to a release.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseRequest {
    /// Requests that only the journal of the node has are missing for good.
    #[expect(dead_code, reason = "it has one value")]
    accept_loss: AcceptLoss,
}

/// A node that was given up.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Released {
    released: bool,
    /// The node as it was before. Its `leased_units` now count as used, its `open_requests` as failed.
    node: Node,
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn node_calls() -> Vec<Call<Self>> {
        vec![
            Call::new(
                "GET /nodes",
                "listNodes",
                "List the nodes of the database",
                Self::list_nodes,
            ),
            Call::new(
                "POST /nodes/{number}/release",
                "releaseNode",
                "Give up a silent node whose journal is lost",
                Self::release_node,
            )
            .fails_with(catalog::NODE_IN_USE)
            .fails_with(catalog::NODE_CLOSED),
        ]
    }

    async fn list_nodes(self: Arc<Self>, _: CallRequest) -> Result<Json<Nodes>, AdminError> {
        let nodes = self.store.nodes().await?;
        Ok(Json(Nodes { nodes: nodes.into_iter().map(Node::from).collect() }))
    }

    async fn release_node(
        self: Arc<Self>,
        request: CallRequest<NodeNumber, NoQuery, Json<ReleaseRequest>>,
    ) -> Result<Json<Released>, AdminError> {
        let (NodeNumber(number), by) = (request.path, request.by);
        let token_id = by.token_id.clone();
        let node = match self.store.release_node(number, by).await? {
            ReleaseOutcome::Released(node) => *node,
            ReleaseOutcome::NotSilent(node) => {
                let code = match node.state {
                    NodeState::Closed | NodeState::Released => catalog::NODE_CLOSED,
                    NodeState::InUse | NodeState::Silent => catalog::NODE_IN_USE,
                };
                return Err(code.with(&[("number", &number)]).into());
            }
            ReleaseOutcome::UnknownNode => return Err(catalog::NODE_NOT_FOUND.into()),
        };
        tracing::warn!(
            token_id,
            node = number,
            units = node.leased_units,
            keys = node.leased_keys,
            open_requests = node.open_requests,
            "node released: units that it may have used count as used"
        );
        Ok(Json(Released { released: true, node: node.into() }))
    }
}
