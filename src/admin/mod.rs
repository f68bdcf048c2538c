//! The operator's API and page, as a Tower service.
//!
//! # Rules
//!
//! - Every call needs an admin token. The page and the OpenAPI document hold no data and need none.
//!   An attempt without a valid token gets 401 and an audit entry, up to 10 a minute per source;
//!   further attempts get 429. A valid token is always accepted.
//! - The whole key is shown once, in the response to the call that issues or rotates it. Lists,
//!   reports, the audit trail and errors show it masked.
//! - Input is strict: an unknown or invalid field or parameter gets 400 with its name. Any content
//!   type is read as JSON, up to 64 KiB.
//! - When the store is unavailable the response is 503. A change is in effect when its response
//!   arrives.
//! - Every response is `Cache-Control: no-store`.
//!
//! # Calls
//!
//! | call | response |
//! |---|---|
//! | `POST /admin/keys` | 201, the whole key; with `count`: `count` and `keys` |
//! | `GET /admin/keys?limit=&after=&search=&sort=&state=` | `keys`, `count` (on this page) and `next` |
//! | `GET` · `PATCH` · `DELETE /admin/keys/{ref}` | the key · the changed key · the deleted key |
//! | `POST /admin/keys/{ref}/rotate` | the key with its new secret |
//! | `POST /admin/keys/{ref}/claim` | 201, a link that reveals the key once, see [`claim`] |
//! | `GET /admin/keys/export` | all keys as CSV, by their hashes |
//! | `POST /admin/keys/import?dry_run=` | the outcome for each line of a CSV file |
//! | `POST /admin/reset-usage` | the key, whose count of today is 0 |
//! | `GET /admin/usage?day=&from=&to=&key=&group_by=&format=` | a report, JSON or CSV |
//! | `GET /admin/requests?limit=&before=&key=&failed=&request_id=` | single requests, latest first |
//! | `GET /admin/audit?limit=&before=&key=&action=&token_id=&from=&to=` | `entries`, newest first, and `next` |
//! | `GET /admin/status` | version, day, health and settings |
//! | `POST /admin/backup` | a copy of the store as an SQLite file, one at a time, if the store supports it |
//! | `GET /admin/openapi.json` | the OpenAPI 3.1 document; needs no token |
//! | `GET /admin` | the page |
//!
//! `{ref}` is the key's id or the whole key, percent-encoded.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::ServiceExt;
//! use tower_quota::{
//!     admin::{AdminTokens, admin_service},
//!     store::memory::MemoryStore,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tokens = AdminTokens::parse("correct-horse-battery-staple")?;
//! let admin = admin_service(MemoryStore::new(), tokens);
//!
//! let request = Request::post("/admin/keys")
//!     .header("authorization", "Bearer correct-horse-battery-staple")
//!     .body(Full::<Bytes>::from(r#"{"label": "用户A的试用密钥", "daily_limit": 200}"#))?;
//! assert_eq!(admin.oneshot(request).await?.status(), 201);
//! # Ok(())
//! # }
//! ```

mod access;
mod calls;
pub mod claim;
mod client_addrs;
mod http;
mod page;
mod rejections;
mod service;
mod shared;

pub use self::{
    access::tokens::{AdminTokens, InvalidAdminToken},
    claim::{ClaimBody, ClaimFuture, ClaimService, claim_service},
    client_addrs::ClientAddrs,
    http::body::AdminBody,
    rejections::{RejectedRequest, RejectionLog, masked_prefix},
    service::{AdminService, ResponseFuture, admin_service},
};
