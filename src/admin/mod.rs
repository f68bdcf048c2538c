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
//! Keys are issued, listed, changed, rotated, offered by a [claim link](ClaimService), deleted, exported and imported
//! below `/admin/keys`. `/admin/usage`, `/admin/requests`, `/admin/audit` and `/admin/status` report;
//! `/admin/reset-usage` resets the count of a key, and `/admin/backup` copies the store.
//! `/admin/openapi.json` describes each call (OpenAPI 3.1), and `docs/admin-api.md` explains them.
//! `/admin` is the page.
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
mod claim;
mod client_addrs;
mod http;
mod page;
mod rejections;
mod service;
mod shared;
pub mod store;

pub use self::{
    access::tokens::{AdminTokens, InvalidAdminToken},
    claim::{ClaimBody, ClaimService, claim_service},
    client_addrs::ClientAddrs,
    http::body::AdminBody,
    rejections::{RejectionEntry, RejectionLog},
    service::{AdminService, ResponseFuture, admin_service},
};
