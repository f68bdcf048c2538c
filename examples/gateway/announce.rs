//! The lines that a start prints.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::logging::BackgroundWriter;

/// What a start prints on standard output for the operator.
pub(crate) struct Announcement<'a> {
    pub(crate) listen: SocketAddr,
    /// Whether the listener was passed by a service manager.
    pub(crate) is_inherited: bool,
    pub(crate) upstream: &'a str,
    pub(crate) database: &'a str,
    pub(crate) time_zone: &'a str,
    /// The admin token that was generated for this run.
    pub(crate) admin_token: Option<&'a str>,
    pub(crate) has_upstream_key: bool,
    /// Whether clients on other machines reach the gateway without a TLS proxy, judging by the settings.
    pub(crate) is_exposed: bool,
}

impl Announcement<'_> {
    pub(crate) fn print(&self, stdout: &BackgroundWriter) {
        stdout.push(self.to_string().as_bytes());
    }
}

/// Returns the URL of a gateway that listens on this address, for a client on this machine.
pub(crate) fn local_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

impl fmt::Display for Announcement<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "listening on  http://{}", self.listen)?;
        if self.is_inherited {
            writeln!(out, "              the socket of LISTEN_FDS; HOST and PORT are not used")?;
        }
        writeln!(out, "admin page    {}/admin", local_url(self.listen))?;
        writeln!(out, "upstream      {}", self.upstream)?;
        writeln!(out, "database      {}", self.database)?;
        writeln!(out, "time zone     {}", self.time_zone)?;
        if !self.has_upstream_key {
            let warning = "UPSTREAM_API_KEY is not set: requests go upstream with no credential";
            writeln!(out, "warning       {warning}")?;
        }
        if self.is_exposed {
            let warning =
                "other machines can connect, and there is no TLS: keys and tokens travel in clear";
            writeln!(out, "warning       {warning}")?;
            let advice =
                "put a proxy that terminates TLS in front, and its address into TRUSTED_PROXIES";
            writeln!(out, "              {advice}")?;
        }
        if let Some(token) = self.admin_token {
            writeln!(out, "admin token   {token}")?;
            writeln!(out, "              made for this run; set ADMIN_TOKEN to keep one")?;
            writeln!(out, "create a key with\n")?;
            writeln!(out, "  curl -X POST {}/admin/keys \\", local_url(self.listen))?;
            writeln!(out, "    -H 'Authorization: Bearer {token}' \\")?;
            writeln!(out, "    -H 'Content-Type: application/json' \\")?;
            writeln!(out, "    -d '{{\"label\": \"alice\", \"daily_limit\": 200}}'\n")?;
        }
        Ok(())
    }
}
