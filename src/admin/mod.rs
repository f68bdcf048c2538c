//! The operator's API and page, as a Tower service.
//!
//! # Rules
//!
//! - Every call needs an admin token; the page and the description hold no data and need none. A
//!   refused attempt is 401 and is noted in the audit trail, 10 a minute of each source at most;
//!   the others are 429. A right token is always let in.
//! - The whole key is shown once, by the call that issues or rotates it. Lists, reports, the audit
//!   trail and errors show it masked.
//! - Input is strict: a field or parameter that is unknown or wrong is 400 with its name. Any
//!   content type is read as JSON, at most 64 KiB.
//! - A store that cannot answer is 503; a change is in effect once it is answered.
//! - Every answer is `Cache-Control: no-store`.
//!
//! # Calls
//!
//! | call | answer |
//! |---|---|
//! | `POST /admin/keys` | 201, the key with its secret; with `count`: `count` and `keys` |
//! | `GET /admin/keys?limit=&after=&search=&sort=&state=` | `keys`, `count` (on this page) and `next` |
//! | `GET` · `PATCH` · `DELETE /admin/keys/{ref}` | one key · changed · stopped |
//! | `POST /admin/keys/{ref}/rotate` | the key with its new secret |
//! | `POST /admin/keys/{ref}/claim` | 201, a link that gives the key once, see [`claim`] |
//! | `GET /admin/keys/export` | all keys as CSV, by their hashes |
//! | `POST /admin/keys/import?dry_run=` | what came of each line of a CSV file |
//! | `POST /admin/reset-usage` | today's count of one key is 0 |
//! | `GET /admin/usage?day=&from=&to=&key=&group_by=&format=` | a report, JSON or CSV |
//! | `GET /admin/requests?limit=&before=&key=&failed=&request_id=` | single requests, the latest first |
//! | `GET /admin/audit?limit=&before=&key=&action=&token_id=&from=&to=` | `entries`, newest first, and `next` |
//! | `GET /admin/status` | version, day, health and settings |
//! | `POST /admin/backup` | a copy of the store as an SQLite file, where the store can make one; one at a time |
//! | `GET /admin/openapi.json` | all this as an OpenAPI 3.1 document; needs no token |
//! | `GET /admin` | the page |
//!
//! `{ref}` is a record's id or the whole key, percent-encoded.
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

mod answers;
mod attempts;
mod audit;
mod auth;
mod backup;
mod call;
mod calls;
pub mod claim;
mod client_addrs;
mod csv;
mod facts;
mod future;
mod guard;
mod input;
mod keys;
mod note_budget;
mod openapi;
mod page;
mod query;
mod refusal;
mod rejections;
mod requests;
mod route;
mod schema;
mod service;
mod shared;
mod status;
mod tokens;
mod usage;
mod view;

pub use auth::ClientAddr;
pub use claim::{ClaimBody, ClaimFuture, ClaimService, claim_service};
pub use client_addrs::ClientAddrs;
pub use csv::{AdminBody, AdminRows};
pub use future::ResponseFuture;
pub use rejections::{RejectedRequest, RejectionLog, masked_prefix};
pub use service::{AdminService, admin_service};
pub use tokens::{AdminTokens, InvalidAdminToken};
