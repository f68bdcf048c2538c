use std::{net::TcpListener, sync::Mutex};

/// Returns a port of 127.0.0.1 on which nothing listens. It is given out once in this process, and
/// never by the system, whose ports are higher: so it stays free until the program under test binds it.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = 12_000 + u16::try_from(random() % 18_000).unwrap();
        if !given.contains(&port) && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            given.push(port);
            return port;
        }
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
