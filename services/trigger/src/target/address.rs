//! Which addresses a URL names, as far as its text tells.

use std::net::IpAddr;

use reqwest::Url;

/// The address in a URL. `None`: the URL has a name.
fn ip(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether nobody between the two programs can read along.
pub(super) fn is_loopback(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default();
    name == "localhost"
        || name.ends_with(".localhost")
        || ip(url).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether the address is link-local (RFC 3927, RFC 4291), or the metadata service of AWS in IPv6.
pub(super) fn is_link_local(url: &Url) -> bool {
    const AWS_METADATA: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
    match ip(url).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip.segments() == AWS_METADATA,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_loopback_and_metadata_services_are_known() {
        for (url, loopback, link_local) in [
            ("http://localhost:8080/x", true, false),
            ("http://app.localhost", true, false),
            ("http://127.0.0.9", true, false),
            ("http://[::1]:1", true, false),
            ("http://[::ffff:127.0.0.1]", true, false),
            ("http://169.254.169.254/latest", false, true),
            ("http://2852039166", false, true),
            ("http://[::ffff:169.254.169.254]", false, true),
            ("http://[fe80::1]", false, true),
            ("http://[fd00:ec2::254]", false, true),
            ("http://10.0.0.1", false, false),
            ("https://receiver.example.com", false, false),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(is_loopback(&parsed), loopback, "{url}");
            assert_eq!(is_link_local(&parsed), link_local, "{url}");
        }
    }
}
