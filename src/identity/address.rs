use url::{Host, Url};

/// Whether an address is of this machine, by its name or number.
pub fn is_of_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether secrets may be sent to an address, and keys believed that come from it: https, or http
/// on this machine.
pub fn is_safe_address(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.has_host(),
        "http" => is_of_this_machine(url),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (address, safe) in [
            ("https://api.clerk.com", true),
            ("http://localhost:8080/x", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:1", true),
            ("http://api.clerk.com", false),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("ftp://localhost", false),
            ("data:text/plain,x", false),
        ] {
            let url = Url::parse(address).expect("an address");
            assert_eq!(is_safe_address(&url), safe, "{address}");
        }
    }
}
