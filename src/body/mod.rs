//! Response bodies: the inner service's or the layer's own ([`ResponseBody`]), and the one place
//! that knows how a body ended ([`ObservedBody`]).

mod hint;
mod observed;
mod response;

pub(crate) use hint::with_read;
pub use observed::{BodyEnd, BodyObserver, ObservedBody, expected_length};
pub use response::ResponseBody;
