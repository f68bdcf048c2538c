//! stand-in
mod announce;
mod catch_panic;
mod demo;
mod edge;
mod io;
mod ops;
mod route;
mod server;
mod settings;
#[tokio::main]
async fn main() {
    let settings = match settings::Settings::load() {
        Ok(s) => s,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(2)
        }
    };
    if settings.demo {
        println!("{}", demo::start().await.unwrap());
        std::future::pending::<()>().await
    }
}
