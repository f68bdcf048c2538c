use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Number of ports, below those that the system assigns to others.
const PORTS: u32 = 18_000;

/// Returns a port on which nothing listens. A process gets each port once, and processes start at
/// different ones, so it stays free until the program under test binds it.
pub(crate) fn free_port() -> u16 {
    static RETURNED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = RETURNED.fetch_add(1, Ordering::Relaxed);
        let offset = process::id().wrapping_mul(97).wrapping_add(number) % PORTS;
        let port = 12_000 + u16::try_from(offset).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
