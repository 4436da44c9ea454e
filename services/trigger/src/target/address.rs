//! Which addresses a URL names, as far as its text tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tagtrail_config::{Door, File, Network, Trigger};

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

/// The addresses to which requests of triggers of the API may go: those of the internet, and those
/// that the file lists. A trigger of the API must not reach what only this machine can reach.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Arc<[Network]>);

impl Allowed {
    /// Returns the addresses for a trigger. `None`: all, for a trigger of a file.
    pub(super) fn of(trigger: &Trigger, file: &File) -> Option<Allowed> {
        let listed = file.api_triggers.as_ref();
        let listed = listed.map_or(&[][..], |listed| &listed.allow_addresses);
        (trigger.door() == Door::Api).then(|| Allowed::new(listed))
    }

    fn new(networks: &[Network]) -> Allowed {
        Allowed(networks.into())
    }

    fn has(&self, address: IpAddr) -> bool {
        !is_private(address) || self.0.iter().any(|network| network.contains(address))
    }

    /// Checks an address that the URL names as a number: of such a one no name is resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), String> {
        match ip(url) {
            Some(address) if !self.has(address) => Err(refused(address)),
            _ => Ok(()),
        }
    }
}

fn refused(address: IpAddr) -> String {
    format!(
        "{address} is a private address, and allow_addresses of [api_triggers] in tagtrail.toml does not list it"
    )
}

/// Resolves names for each connection, and leaves out addresses that are not allowed. So a name
/// whose address changes after a check leads nowhere else.
impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (good, bad): (Vec<_>, Vec<_>) =
                found.partition(|address| allowed.has(address.ip()));
            match (good.is_empty(), bad.first()) {
                (true, Some(bad)) => Err(refused(bad.ip()).into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address belongs to this machine, to its link, or to a private network.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // 0.0.0.0/8 is this network, 100.64.0.0/10 is shared by providers (RFC 6890).
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
                || (a == 192 && b == 0 && ip.octets()[2] == 0)
                || (a == 198 && b & 0xfe == 18)
                || a >= 240
        }
        IpAddr::V6(ip) => {
            let segments = ip.segments();
            // Addresses that hold one of IPv4: NAT64 (RFC 6052), 6to4 (RFC 3056), compatible ones.
            let inner = match segments {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low]
                | [0x2002, high, low, ..]
                | [0, 0, 0, 0, 0, 0, high, low] => Some((high, low)),
                _ => None,
            };
            let inner =
                inner.map(|(high, low)| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
            ip == Ipv6Addr::LOCALHOST
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || segments[0] & 0xffc0 == 0xfec0
                || inner.is_some_and(|inner| is_private(inner.into()))
        }
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

    #[test]
    fn private_addresses_are_known_in_every_form() {
        for (address, private) in [
            ("127.0.0.1", true),
            ("10.2.3.4", true),
            ("172.31.0.1", true),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.100.1.1", true),
            ("0.0.0.0", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("198.18.0.1", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:10.0.0.1", true),
            ("64:ff9b::a00:1", true),
            ("2002:a00:1::", true),
            ("8.8.8.8", false),
            ("172.32.0.1", false),
            ("100.128.0.1", false),
            ("2001:4860:4860::8888", false),
            ("64:ff9b::808:808", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), private, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_refused_at_each_connection() {
        let nothing = Allowed::new(&[]);
        let loopback = Allowed::new(&["127.0.0.0/8".to_owned().try_into().unwrap()]);
        let resolve = async |allowed: &Allowed| {
            let found = allowed.resolve("localhost".parse().unwrap()).await;
            found.map(|found| found.map(|one| one.ip()).collect::<Vec<_>>())
        };
        let error = resolve(&nothing).await.unwrap_err().to_string();
        assert!(error.contains("allow_addresses"), "{error}");
        let found = resolve(&loopback).await.unwrap();
        assert!(
            found.iter().all(|ip| ip.is_ipv4() && ip.is_loopback()),
            "{found:?}"
        );
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(nothing.check(&url("http://[::ffff:127.0.0.1]/x")).is_err());
        assert!(nothing.check(&url("http://2130706433/")).is_err());
        assert!(loopback.check(&url("http://127.0.0.1/")).is_ok());
        assert!(nothing.check(&url("https://receiver.example.com/")).is_ok());
    }
}
