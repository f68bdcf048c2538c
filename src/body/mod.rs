//! Response bodies: the inner service's or the layer's own ([`ResponseBody`]), and the one place
//! that knows how a body ended ([`ObservedBody`]).

mod observed;
mod response;

pub use observed::{BodyEnd, BodyObserver, ObservedBody, expected_length};
pub use response::ResponseBody;
